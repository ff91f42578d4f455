package delivery

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"postrider/queue"
)

// Action is what a reply asks for beyond its code.
type Action uint8

const (
	// RetrySoon: as greylisted. It is tried again after the hint in the reply,
	// or when the schedule says, and the site is not slowed.
	RetrySoon Action = iota + 1
	// SlowDown: fewer connections at a time.
	SlowDown
	// Pause: nothing to the site for a while.
	Pause
	// Permanent: the code is temporary, the reason is not.
	Permanent
)

// String gives the word of the rules file.
func (a Action) String() string {
	return [...]string{"none", "retry-soon", "slow-down", "suspend", "permanent"}[a]
}

// Rule reads a meaning out of a reply that refuses. The first one that matches
// counts.
type Rule struct {
	Name string
	// Code is one, two or all three of the code's digits: 4, 45, 421; 0: any
	// refusal.
	Code int
	// Pattern is matched against the reply's text, with the enhanced status
	// that it may begin with. Go's expressions take time linear in the text,
	// and the text is bounded.
	Pattern *regexp.Regexp
	// Domain is the recipients', "*." and a parent means its subdomains; Site is
	// as Options.Site names it. Empty: any.
	Domain, Site string
	Action       Action
	For          time.Duration // of a Pause; of RetrySoon where the reply names no time
	Class        queue.Class   // the bounce class, where the rule knows it
}

// Rules are tried in order. A nil Rules reads nothing but the codes.
type Rules []Rule

// DefaultRules know the words that large and common receivers use.
func DefaultRules() Rules {
	return Rules{
		{Name: "greylisted", Code: 4, Action: RetrySoon, Class: queue.ClassGreylisted,
			Pattern: regexp.MustCompile(`(?i)gr[ae]y-? ?list|not yet authorized to deliver`)},
		{Name: "too many connections", Code: 4, Action: SlowDown, Class: queue.ClassRate,
			Pattern: regexp.MustCompile(`(?i)too many (concurrent |simultaneous |smtp )?(connections|sessions)|connection (rate )?limit|concurrent connections`)},
		{Name: "rate limited by Microsoft", Code: 4, Action: SlowDown, Class: queue.ClassRate,
			Pattern: regexp.MustCompile(`\bRP-00[123]\b|4\.7\.5(00|01)\b.*(busy|traffic)|has exceeded the maximum number of connections`)},
		{Name: "rate limited", Code: 4, Action: SlowDown, Class: queue.ClassRate,
			Pattern: regexp.MustCompile(`(?i)rate.?limit|unusual rate|throttl|too (many|much) (messages|mail|e-?mails|recipients in)|(sending|connecting) too (fast|quickly|often)|slow(ing)? down|4\.7\.(28|650)\b`)},
		{Name: "deferred by reputation", Code: 4, Action: Pause, For: 10 * time.Minute, Class: queue.ClassReputation,
			Pattern: regexp.MustCompile(`(?i)\[TSS?0?\d+\]|temporarily deferred due to (user complaints|unexpected volume)|IB10[678]|temporarily (rejected|blocked) due to (low )?reputation|likely suspicious due to the very low reputation|\bHVU:|\bCS01\b`)},
		{Name: "told when to come back", Code: 45, Action: RetrySoon, Class: queue.ClassGreylisted,
			Pattern: regexp.MustCompile(`(?i)(try(ing)?( again)?|retry|come back|wait)( later)? (in|after|for)? ?\d+ ?(s|m|h)`)},
	}
}

// peer is whom a reply is from.
type peer struct {
	domain string // of the recipients
	plan   *Plan
	site   func(*Plan) string
}

// match finds the rule for a reply; nil where there is none.
func (rules Rules) match(code int, text string, p peer) *Rule {
	for i := range rules {
		r := &rules[i]
		if r.Code != 0 && r.Code != code && r.Code != code/10 && r.Code != code/100 {
			continue
		}
		if r.isFor(p) && r.Pattern.MatchString(text) {
			return r
		}
	}
	return nil
}

func (r *Rule) isFor(p peer) bool {
	if r.Site != "" && (p.plan == nil || r.Site != p.site(p.plan)) {
		return false
	}
	if parent, ok := strings.CutPrefix(r.Domain, "*"); ok {
		return len(p.domain) > len(parent) && strings.HasSuffix(p.domain, parent)
	}
	return r.Domain == "" || r.Domain == p.domain
}

// The longest wait that a reply may ask for, and the shortest.
const (
	longestHint  = 2 * time.Hour
	shortestHint = time.Second
)

var hint = regexp.MustCompile(`(?i)\b(\d{1,5}) ?(s|secs?|seconds?|m|mins?|minutes?|h|hours?)\b`)

// retryHint reads how long a greylister wants us to wait; 0 where it does not
// say.
func retryHint(text string) time.Duration {
	m := hint.FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil || n == 0 {
		return 0
	}
	unit := time.Second
	switch m[2][0] | 0x20 {
	case 'm':
		unit = time.Minute
	case 'h':
		unit = time.Hour
	}
	return min(max(time.Duration(n)*unit, shortestHint), longestHint)
}

// judge lets the rules change an outcome that a reply led to, and notes what
// they mean for the site. It answers whether the reply asks for patience alone,
// which is no news about the site.
func (rules Rules) judge(o *queue.Outcome, p peer, r *Report) (isPatience bool) {
	if o.Code < 400 {
		return false
	}
	rule := rules.match(o.Code, o.Text, p)
	if rule == nil {
		r.Slow = r.Slow || o.Code == 421
		return false
	}
	o.Class = rule.Class
	switch rule.Action {
	case RetrySoon:
		if o.RetryAfter = retryHint(o.Text); o.RetryAfter == 0 {
			o.RetryAfter = rule.For
		}
		return true
	case SlowDown:
		r.Slow = true
	case Pause:
		r.Slow = true
		if rule.For > r.Pause {
			r.Pause, r.Why = rule.For, rule.Name
		}
	case Permanent:
		o.Verdict, o.Status = queue.Failed, withClass(o.Status, '5')
	}
	return false
}
