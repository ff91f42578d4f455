package mtasts

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseRecord(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		txts []string
		want string
		err  string
	}{
		{"of the RFC", []string{"v=STSv1; id=20160831085700Z;"}, "20160831085700Z", ""},
		{"without last semicolon", []string{"v=STSv1; id=1"}, "1", ""},
		{"without blanks", []string{"v=STSv1;id=1;"}, "1", ""},
		{"many blanks", []string{"v=STSv1 \t; \tid=1 \t; "}, "1", ""},
		{"extension", []string{"v=STSv1; foo_1.x-y=a:b,c; id=1; bar=2;"}, "1", ""},
		{"longest id", []string{"v=STSv1; id=" + strings.Repeat("a", 32)}, strings.Repeat("a", 32), ""},
		{"two ids", []string{"v=STSv1; id=1; id=2;"}, "1", ""},
		{"beside others", []string{"v=spf1 -all", "v=STSv1; id=1;", "v=STSv2; id=2;", "v=STSv12; id=3", "V=STSV1; id=4;", "v=STSv1"}, "1", ""},
		{"none", nil, "", ""},
		{"only others", []string{"v=spf1 -all", "", "v=STSv1"}, "", ""},
		{"two", []string{"v=STSv1; id=1;", "v=STSv1; id=1;"}, "", "more than one"},
		{"no id", []string{"v=STSv1;"}, "", "no id"},
		{"no id, an extension", []string{"v=STSv1; x=1;"}, "", "no id"},
		{"empty id", []string{"v=STSv1; id=;"}, "", "malformed field"},
		{"long id", []string{"v=STSv1; id=" + strings.Repeat("a", 33)}, "", "not 1 to 32"},
		{"id with a hyphen", []string{"v=STSv1; id=2016-08-31;"}, "", "letters and digits"},
		{"upper case key", []string{"v=STSv1; ID=1;"}, "", "no id"},
		{"no equals sign", []string{"v=STSv1; id 1;"}, "", "malformed field"},
		{"blanks around the equals sign", []string{"v=STSv1; id = 1;"}, "", "malformed field"},
		{"equals sign in a value", []string{"v=STSv1; id=1; x=a=b;"}, "", "malformed field"},
		{"two semicolons", []string{"v=STSv1; ; id=1;"}, "", "malformed field"},
		{"control character", []string{"v=STSv1; id=1; x=\x00;"}, "", "malformed field"},
		{"too long", []string{"v=STSv1; id=1; x=" + strings.Repeat("a", maxRecord)}, "", "at most 1024"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseRecord(tt.txts)
			if got != tt.want || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q, %v, want %q, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestParsePolicy(t *testing.T) {
	t.Parallel()
	const base = "version: STSv1\nmode: enforce\nmax_age: 86400\nmx: mx.test\n"
	tests := []struct {
		name string
		body string
		want Policy
		err  string
	}{
		{"of the RFC", "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n",
			Policy{Mode: Enforce, MX: []string{"mail.example.com", "*.example.net", "backupmx.example.com"}, MaxAge: 604800 * time.Second}, ""},
		{"LF, no end", "version: STSv1\nmode: testing\nmax_age: 0\nmx: mx.test", Policy{Mode: Testing, MX: []string{"mx.test"}}, ""},
		{"no blanks", "version:STSv1\nmode:none\nmax_age:1", Policy{Mode: None, MaxAge: time.Second}, ""},
		{"blanks at ends and empty lines", "version: \t STSv1  \n\nmode: enforce\t\n \nmax_age: 86400 \nmx:   MX.test \n\n", Policy{Mode: Enforce, MX: []string{"mx.test"}, MaxAge: 24 * time.Hour}, ""},
		{"unknown keys", base + "x-new: a:b:c\nfoo:\n", Policy{Mode: Enforce, MX: []string{"mx.test"}, MaxAge: 24 * time.Hour}, ""},
		{"the first of two counts", base + "mode: none\nmax_age: nonsense\nversion: STSv9\n", Policy{Mode: Enforce, MX: []string{"mx.test"}, MaxAge: 24 * time.Hour}, ""},
		{"longest age", strings.Replace(base, "86400", "9999999999", 1), Policy{Mode: Enforce, MX: []string{"mx.test"}, MaxAge: maxMaxAge * time.Second}, ""},
		{"A-labels and underscore", base + "mx: xn--bcher-kva.test\nmx: a_b.test\n", Policy{Mode: Enforce, MX: []string{"mx.test", "xn--bcher-kva.test", "a_b.test"}, MaxAge: 24 * time.Hour}, ""},

		{"empty", "", Policy{}, "no version"},
		{"a web page", "<!DOCTYPE html>\n<html>", Policy{}, "line 1"},
		{"no mode", "version: STSv1\nmax_age: 1\nmx: mx.test\n", Policy{}, "no mode"},
		{"no age", "version: STSv1\nmode: none\n", Policy{}, "no max_age"},
		{"no mx", "version: STSv1\nmode: enforce\nmax_age: 1\n", Policy{}, "no mx"},
		{"other version", "version: STSv2\n", Policy{}, `version "STSv2"`},
		{"unknown mode", "version: STSv1\nmode: Enforce\n", Policy{}, `mode "Enforce"`},
		{"negative age", "version: STSv1\nmax_age: -1\n", Policy{}, "max_age"},
		{"age of 11 digits", "version: STSv1\nmax_age: 00000000001\n", Policy{}, "max_age"},
		{"age in words", "version: STSv1\nmax_age: 1 day\n", Policy{}, "max_age"},
		{"wildcard within", "mx: a.*.test\n", Policy{}, "line 1"},
		{"wildcard alone", "mx: *\n", Policy{}, "mx"},
		{"wildcard and nothing", "mx: *.\n", Policy{}, "mx"},
		{"final dot", "mx: mx.test.\n", Policy{}, "mx"},
		{"two names on a line", "mx: a.test b.test\n", Policy{}, "mx"},
		{"U-labels", "mx: bücher.test\n", Policy{}, "mx"},
		{"label of 64", "mx: " + strings.Repeat("a", 64) + ".test\n", Policy{}, "mx"},
		{"too many mx", base + strings.Repeat("mx: a.test\n", maxMX), Policy{}, "more than 500"},
		{"too large", base + strings.Repeat("\n", maxPolicy), Policy{}, "more than 65536"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParsePolicy([]byte(tt.body))
			if !reflect.DeepEqual(got, tt.want) || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%+v, %v, want %+v, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	p := Policy{MX: []string{"mx.test", "*.wild.test"}}
	for host, want := range map[string]bool{
		"mx.test":       true,
		"MX.Test.":      true,
		"a.mx.test":     false,
		"xmx.test":      false,
		"test":          false,
		"a.wild.test":   true,
		"A.WILD.TEST":   true,
		"wild.test":     false,
		".wild.test":    false,
		"b.a.wild.tes":  false,
		"b.a.wild.test": false,
		"awild.test":    false,
		"*.wild.test":   true,
		"":              false,
	} {
		if got := p.Match(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
	if (Policy{}).Match("mx.test") {
		t.Error("a policy without mx matches")
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, s := range []string{"v=STSv1; id=20160831085700Z;", "v=STSv1;id=1", "v=STSv1; x=1; id=2;;", "v=spf1", "v=STSv1"} {
		f.Add(s, "")
	}
	f.Add("v=STSv1; id=1", "v=STSv1; id=2")
	f.Fuzz(func(t *testing.T, a, b string) {
		id, err := ParseRecord([]string{a, b})
		if err == nil && (len(id) > maxIDLength || strings.Trim(id, alphanumeric) != "") || err != nil && id != "" {
			t.Fatalf("%q, %v", id, err)
		}
	})
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte("version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"))
	f.Add([]byte("version:STSv1\nmode:none\nmax_age:1"))
	f.Add([]byte("mx: *.\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := ParsePolicy(body)
		if err != nil {
			return
		}
		if p.MaxAge < 0 || p.MaxAge > maxMaxAge*time.Second || len(p.MX) > maxMX {
			t.Fatalf("%+v", p)
		}
		var again strings.Builder
		fmt.Fprintf(&again, "version: STSv1\nmode: %s\nmax_age: %d\n", p.Mode, p.MaxAge/time.Second)
		for _, mx := range p.MX {
			fmt.Fprintf(&again, "mx: %s\n", mx)
			if !p.Match(strings.Replace(mx, "*", "a", 1)) {
				t.Fatalf("%q does not match itself", mx)
			}
		}
		if q, err := ParsePolicy([]byte(again.String())); err != nil || !reflect.DeepEqual(p, q) {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
	})
}

// The store may hand back anything.
func FuzzDecodeRecord(f *testing.F) {
	data, err := encodeRecord("d.test", record{Policy{"1", Enforce, []string{"mx.test"}, time.Hour}, time.Unix(1, 0), time.Unix(2, 0)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1,"domain":"d.test","mode":"none","max_age":-1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord("d.test", data)
		if err != nil {
			return
		}
		if r.Policy.MaxAge < 0 || r.Policy.Mode != None && len(r.Policy.MX) == 0 {
			t.Fatalf("%+v", r)
		}
	})
}
