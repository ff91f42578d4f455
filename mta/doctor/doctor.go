package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"postrider/resolver"
)

// Verdict is what a check came to.
type Verdict string

const (
	OK      Verdict = "ok"
	Warning Verdict = "warning"  // mail gets out, not everywhere or not for ever
	Failed  Verdict = "failed"   // mail does not get out, or is lost to who should read it
	NotDone Verdict = "not done" // what was needed for it was not there
)

// Check names what was looked at. It is a closed set: see Checks.
type Check string

const (
	Configuration Check = "configuration"
	Server        Check = "server"
	Queue         Check = "queue"
	StateDir      Check = "state_dir"
	Space         Check = "space"
	FileSystem    Check = "file_system"
	OpenFiles     Check = "open_files"
	Memory        Check = "memory"
	NameServers   Check = "name_servers"
	DANE          Check = "dane"
	HELO          Check = "helo"
	ReverseDNS    Check = "reverse_dns"
	Port          Check = "port"
	LocalMail     Check = "local_mail"
	DKIM          Check = "dkim"
	SPF           Check = "spf"
	DMARC         Check = "dmarc"
)

// Checks is the whole set, in the order in which a report has them.
func Checks() []Check {
	return []Check{
		Configuration, Server, Queue, StateDir, Space, FileSystem, OpenFiles, Memory,
		NameServers, DANE, HELO, ReverseDNS, Port, LocalMail, DKIM, SPF, DMARC,
	}
}

// Finding is what one check found about one thing.
type Finding struct {
	Check   Check   `json:"check"`
	Subject string  `json:"subject"` // what was looked at
	Verdict Verdict `json:"verdict"`
	Found   string  `json:"found"`            // what it is, and what that means
	Advice  string  `json:"advice,omitempty"` // what to do next
}

// Report is all that was found.
type Report struct {
	Findings []Finding `json:"findings"`
	Failed   int       `json:"failed"`
	Warnings int       `json:"warnings"`
	NotDone  int       `json:"not_done"`
}

// NewReport counts the findings.
func NewReport(findings []Finding) Report {
	r := Report{Findings: findings}
	for i := range findings {
		switch findings[i].Verdict {
		case Failed:
			r.Failed++
		case Warning:
			r.Warnings++
		case NotDone:
			r.NotDone++
		}
	}
	return r
}

// Options say what to look at.
type Options struct {
	Configuration ConfigurationOptions
	State         StateOptions
	Limits        LimitOptions
	DNS           DNSOptions
	Way           WayOptions
	Senders       SenderOptions
	Running       Running // the server of this host
	Version       string  // of this program
	// DelayAfter is the age from which on waiting mail is worth a word; 0: 4 h.
	DelayAfter time.Duration
}

// DNSOptions are about the name servers and our own name.
type DNSOptions struct {
	Resolver *resolver.Resolver
	Probe    resolver.ProbeOptions
	TrustAD  string // as configured: yes, no, auto
	HELO     resolver.HELOOptions
}

// Doctor does the checks. It may be used by one caller at a time.
type Doctor struct {
	o Options
	// What is shared by several checks, and asked for once.
	helo   func(context.Context) (resolver.HELOResult, error)
	server func(context.Context) running

	proc     string // where the kernel tells of processes
	dial     dialFunc
	patience time.Duration
	grace    time.Duration
	isRoot   bool
	uid      int
}

// patience is how long all checks together may take, and grace how long those
// that end with it may need to say so.
const (
	patience = 25 * time.Second
	grace    = 2500 * time.Millisecond
)

// New makes a doctor; it looks at nothing yet.
func New(o Options) *Doctor {
	if o.DelayAfter == 0 {
		o.DelayAfter = 4 * time.Hour
	}
	d := &Doctor{o: o, proc: "/proc", dial: dialTCP, patience: patience, grace: grace}
	d.uid, d.isRoot = effectiveUser()
	return d
}

// group is checks that are done one after the other, since they share what
// they look at.
type group struct {
	checks []Check // that it may give findings of; the first is its name
	do     func(context.Context) []Finding
}

func (d *Doctor) groups() []group {
	return []group{
		{[]Check{Configuration}, d.configuration},
		{[]Check{Server, Queue}, d.running},
		{[]Check{StateDir}, d.stateDir},
		{[]Check{Space}, d.space},
		{[]Check{FileSystem}, d.fileSystem},
		{[]Check{OpenFiles}, d.openFiles},
		{[]Check{Memory}, d.memory},
		{[]Check{NameServers, DANE}, d.nameServers},
		{[]Check{HELO, ReverseDNS}, d.identity},
		{[]Check{Port}, d.port},
		{[]Check{LocalMail}, d.localMail},
		{[]Check{DKIM, SPF, DMARC}, d.senders},
	}
}

// Run does all checks, and gives what was found in the order of Checks.
func (d *Doctor) Run(ctx context.Context) Report {
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	d.share()
	groups := d.groups()
	found := make([]chan []Finding, len(groups))
	for i, g := range groups {
		found[i] = make(chan []Finding, 1)
		// These goroutines are not waited for beyond the time: a file system or
		// a device that hangs cannot be interrupted, and is what somebody who
		// calls the doctor wants to hear of.
		go func() { found[i] <- g.do(ctx) }()
	}
	late := time.NewTimer(d.patience + d.grace)
	defer late.Stop()
	var all []Finding
	isLate := false
	for i, g := range groups {
		if isLate {
			select {
			case f := <-found[i]:
				all = append(all, f...)
			default:
				all = append(all, d.hangs(g))
			}
			continue
		}
		select {
		case f := <-found[i]:
			all = append(all, f...)
		case <-late.C:
			isLate = true
			all = append(all, d.hangs(g))
		}
	}
	order := make(map[Check]int)
	for i, c := range Checks() {
		order[c] = i
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return order[a.Check] - order[b.Check] })
	return NewReport(all)
}

func (d *Doctor) hangs(g group) Finding {
	return Finding{
		Check: g.checks[0], Subject: "the check", Verdict: Failed,
		Found:  fmt.Sprintf("has not come to its end in %s: what it looks at hangs", d.patience),
		Advice: "look at the disk, and at network file systems below state_dir (dmesg, mount)",
	}
}

// share makes what several checks need, found when the first one asks.
func (d *Doctor) share() {
	var helo once[resolver.HELOResult]
	d.helo = func(ctx context.Context) (resolver.HELOResult, error) {
		return helo.get(func() (resolver.HELOResult, error) { return d.o.DNS.Resolver.HELO(ctx, d.o.DNS.HELO) })
	}
	var server once[running]
	d.server = func(ctx context.Context) running {
		r, _ := server.get(func() (running, error) { return d.askServer(ctx), nil })
		return r
	}
}

// once is sync.OnceValues for what is asked with a context: the first caller's
// is as good as any, for all of them come from Run.
type once[T any] struct {
	once  sync.Once
	value T
	err   error
}

func (o *once[T]) get(find func() (T, error)) (T, error) {
	o.once.Do(func() { o.value, o.err = find() })
	return o.value, o.err
}

// ConfigurationOptions are what came of reading the configuration.
type ConfigurationOptions struct {
	File     string // empty: there is none
	Warnings []string
	Errors   []Problem
}

// Problem is something wrong with the configuration, and what to do.
type Problem struct{ Text, Hint string }

func (d *Doctor) configuration(context.Context) []Finding {
	return d.o.Configuration.findings()
}

func (o *ConfigurationOptions) findings() []Finding {
	subject := o.File
	if subject == "" {
		subject = "no file"
	}
	var all []Finding
	for _, e := range o.Errors {
		all = append(all, Finding{Configuration, subject, Failed, "the server does not start with it: " + e.Text, e.Hint})
	}
	for _, w := range o.Warnings {
		all = append(all, Finding{Configuration, subject, Warning, w, ""})
	}
	switch {
	case len(all) > 0:
		return all
	case o.File == "":
		return []Finding{{Configuration, subject, OK, "the defaults are in force", ""}}
	}
	return []Finding{{Configuration, subject, OK, "valid", ""}}
}

// Unconfigured is the report where the configuration cannot be read: nothing
// else is known then of what to look at.
func Unconfigured(o ConfigurationOptions) Report {
	all := o.findings()
	var names []string
	for _, c := range Checks()[1:] {
		names = append(names, string(c))
	}
	return NewReport(append(all, Finding{
		Server, "all other checks", NotDone, "they need a valid configuration: " + strings.Join(names, ", "), "mend the configuration first, and see postrider check",
	}))
}
