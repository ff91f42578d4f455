package tlsrpt

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseRecord(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		txts []string
		want string
		err  string
	}{
		{"mail", []string{"v=TLSRPTv1; rua=mailto:reports@example.test"}, "[mailto:reports@example.test]", ""},
		{"https", []string{"v=TLSRPTv1; rua=https://reporting.example.test/v1/tlsrpt"}, "[https://reporting.example.test/v1/tlsrpt]", ""},
		{"both", []string{"v=TLSRPTv1;rua=mailto:a@b.test , https://c.test;"}, "[mailto:a@b.test https://c.test]", ""},
		{"encoded", []string{"v=TLSRPTv1; rua=mailto:a%2Bb@c.test,https://c.test/a%2Cb?x%3By"}, "[mailto:a+b@c.test https://c.test/a%2Cb?x%3By]", ""},
		{"port and fragment", []string{"v=TLSRPTv1; rua=https://c.test:8443/x#y"}, "[https://c.test:8443/x]", ""},
		{"extension", []string{"v=TLSRPTv1; x=y; rua=mailto:a@b.test; z=1"}, "[mailto:a@b.test]", ""},
		{"two rua", []string{"v=TLSRPTv1; rua=mailto:a@b.test; rua=mailto:c@d.test"}, "[mailto:a@b.test]", ""},
		{"unknown scheme", []string{"v=TLSRPTv1; rua=ftp://a.test,mailto:a@b.test,http://c.test"}, "[mailto:a@b.test]", ""},
		{"many", []string{"v=TLSRPTv1; rua=" + strings.Repeat("mailto:a@b.test,", 20) + "mailto:a@b.test"}, "[mailto:a@b.test mailto:a@b.test mailto:a@b.test mailto:a@b.test mailto:a@b.test]", ""},
		{"beside others", []string{"v=spf1 -all", "v=TLSRPTv1; rua=mailto:a@b.test", "v=TLSRPTv2; rua=mailto:x@y.test", "v=TLSRPTv1", "V=tlsrptv1;rua=mailto:x@y.test"}, "[mailto:a@b.test]", ""},
		{"none", nil, "[]", ""},
		{"only others", []string{"v=spf1 -all"}, "[]", ""},
		{"two", []string{"v=TLSRPTv1; rua=mailto:a@b.test", "v=TLSRPTv1; rua=mailto:a@b.test"}, "", "more than one"},
		{"no rua", []string{"v=TLSRPTv1; x=y"}, "", "no rua"},
		{"nothing", []string{"v=TLSRPTv1;"}, "", "no rua"},
		{"empty rua", []string{"v=TLSRPTv1; rua="}, "", "malformed field"},
		{"no equals sign", []string{"v=TLSRPTv1; rua"}, "", "malformed field"},
		{"no scheme", []string{"v=TLSRPTv1; rua=reports@example.test"}, "", "scheme is missing"},
		{"no address", []string{"v=TLSRPTv1; rua=mailto:reports"}, "", "not an address"},
		{"a name before the address", []string{"v=TLSRPTv1; rua=mailto:x%20%3Ca@b.test%3E"}, "", "not an address"},
		{"a line end in the address", []string{"v=TLSRPTv1; rua=mailto:a%0d%0ab@c.test"}, "", "not an address"},
		{"several addresses", []string{"v=TLSRPTv1; rua=mailto:a@b.test%2Cc@d.test"}, "", "not an address"},
		{"bad escape", []string{"v=TLSRPTv1; rua=mailto:a%zz@b.test"}, "", "rua"},
		{"no host", []string{"v=TLSRPTv1; rua=https:///x"}, "", "a host is needed"},
		{"a password", []string{"v=TLSRPTv1; rua=https://a:b@c.test/"}, "", "no user name"},
		{"too long", []string{"v=TLSRPTv1; rua=mailto:a@b.test; x=" + strings.Repeat("y", maxRecord)}, "", "at most 4096"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseRecord(tt.txts)
			if err != nil || tt.err != "" {
				if err == nil || tt.err == "" || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%v, %v, want %q", got, err, tt.err)
				}
				return
			}
			if fmt.Sprint(got) != tt.want {
				t.Errorf("%v, want %s", got, tt.want)
			}
		})
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, s := range []string{
		"v=TLSRPTv1; rua=mailto:reports@example.test", "v=TLSRPTv1;rua=https://a.test/x,mailto:a%2Bb@c.test;",
		"v=TLSRPTv1; rua=mailto:%0d%0a@c.test", "v=TLSRPTv1; x=y", "v=spf1", "v=TLSRPTv1; rua=https://[::1]:443/",
	} {
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		all, err := ParseRecord([]string{a, b})
		if err != nil && all != nil || len(all) > maxDestinations {
			t.Fatalf("%v, %v", all, err)
		}
		for _, d := range all {
			if (d.Mail == "") == (d.URL == "") || strings.ContainsAny(d.Mail, "\r\n <>\x00,") || d.URL != "" && !strings.HasPrefix(d.URL, "https://") {
				t.Fatalf("%+v", d)
			}
		}
	})
}
