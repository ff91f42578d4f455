package smtpclient

import (
	"reflect"
	"strings"
	"testing"
)

func TestMailParams(t *testing.T) {
	t.Parallel()
	all := Extensions{SizeKnown: true, EightBitMIME: true, DSN: true, MTPriority: true}
	full := MailOptions{Size: 1234, Body: "8BITMIME", SMTPUTF8: true, RequireTLS: true, Ret: "HDRS", EnvID: "a+b c", Priority: -3}
	tests := []struct {
		name string
		ext  Extensions
		o    MailOptions
		want string
	}{
		{"nothing", all, MailOptions{}, ""},
		{"all", all, full, "SIZE=1234 BODY=8BITMIME SMTPUTF8 REQUIRETLS RET=HDRS ENVID=a+2Bb+20c MT-PRIORITY=-3"},
		{"a server without extensions", Extensions{}, full, "SMTPUTF8 REQUIRETLS"},
		{"size alone", Extensions{SizeKnown: true}, full, "SIZE=1234 SMTPUTF8 REQUIRETLS"},
		{"line ends in ENVID", all, MailOptions{EnvID: "a\r\nb"}, "ENVID=a+0D+0Ab"},
	}
	for _, tt := range tests {
		if got := MailParams(tt.ext, tt.o); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRcptParams(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		dsn  bool
		o    RcptOptions
		want string
	}{
		{"nothing", true, RcptOptions{}, ""},
		{"no DSN", false, RcptOptions{NotifyNever: true, ORCPT: "rfc822;a@b.test"}, ""},
		{"never", true, RcptOptions{NotifyNever: true, NotifyFailure: true}, "NOTIFY=NEVER"},
		{"all", true, RcptOptions{NotifySuccess: true, NotifyFailure: true, NotifyDelay: true, ORCPT: "rfc822;a@b.test"}, "NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;a@b.test"},
		{"one", true, RcptOptions{NotifyDelay: true}, "NOTIFY=DELAY"},
		{"address alone", true, RcptOptions{ORCPT: "rfc822;a@b.test"}, "ORCPT=rfc822;a@b.test"},
	}
	for _, tt := range tests {
		if got := RcptParams(Extensions{DSN: tt.dsn}, tt.o); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestParseEHLO(t *testing.T) {
	t.Parallel()
	got := parseEHLO([]string{"mx.test at your service", "pipelining", "Chunking", "8bitMIME", "smtputf8", "DSN", "StartTLS",
		"requiretls", "EnhancedStatusCodes", "mt-priority MIXER", "SIZE 52428800", "AUTH plain LOGIN", "AUTH=LOGIN CRAM-MD5",
		"limits rcptmax=100 MAILMAX=20 RCPTDOMAINMAX=1 X=y=z bad", "", "X-UNKNOWN a b"})
	want := Extensions{
		Pipelining: true, Chunking: true, EightBitMIME: true, SMTPUTF8: true, DSN: true, StartTLS: true, RequireTLS: true, EnhancedStatus: true,
		MTPriority: true, SizeKnown: true, Size: 52428800, RcptMax: 100, MailMax: 20, Auth: []string{"PLAIN", "LOGIN", "LOGIN", "CRAM-MD5"},
		Limits: map[string]string{"RCPTMAX": "100", "MAILMAX": "20", "RCPTDOMAINMAX": "1", "X": "y=z"}, Name: "mx.test",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for line, want := range map[string]Extensions{
		"SIZE":                              {SizeKnown: true},
		"SIZE 0":                            {SizeKnown: true},
		"SIZE -1":                           {SizeKnown: true},
		"SIZE 99999999999999999999":         {SizeKnown: true},
		"SIZE 18446744073709551615":         {SizeKnown: true},
		"SIZE  100 ":                        {SizeKnown: true, Size: 100},
		"LIMITS RCPTMAX=0 MAILMAX=1000000":  {Limits: map[string]string{"RCPTMAX": "0", "MAILMAX": "1000000"}},
		"LIMITS RCPTMAX=-5 MAILMAX=x":       {Limits: map[string]string{"RCPTMAX": "-5", "MAILMAX": "x"}},
		"LIMITS":                            {},
		"PIPELINING-NOT":                    {},
		"XPIPELINING":                       {},
		strings.Repeat("PIPELINING", 100):   {},
		"PIPELINING with words of its own":  {Pipelining: true},
		"STARTTLS\x00":                      {},
		"CHUNKING\tor not, after a tab":     {},
		"AUTH":                              {},
		"250-CHUNKING (a code in the text)": {},
	} {
		if got := parseEHLO([]string{"", line}); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, want %+v", line, got, want)
		}
	}
}
