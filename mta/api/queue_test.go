package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postrider/mta/api/client"
	"postrider/mta/api/wire"
	"postrider/queue"
)

// fill puts six messages into the queue, in all states.
func fill(t *testing.T, edit func(*Options)) (r *room, ids map[string]string) {
	t.Helper()
	r = newRoom(t, edit)
	ids = make(map[string]string)
	add := func(name string, env queue.Envelope, recipients ...string) {
		ids[name] = r.put(env, recipients...).String()
	}
	add("old", queue.Envelope{Tag: "week46", ArrivedAt: start.Add(-5 * time.Hour)}, "anna@bank.test", "ben@shop.test")
	r.settle("bank.test", greylistedOutcome)
	add("mixed", queue.Envelope{Sender: "b@other.test"}, "carla@city.test", "dora@school.test")
	r.settle("city.test", refusedOutcome)
	add("held", queue.Envelope{Held: true, Tag: "week47"}, "emil@shop.test")
	add("null", queue.Envelope{Sender: "<>"}, "a@sender.test")
	add("sub", queue.Envelope{}, "f@eu.shop.test", "G@Shop.Test")
	add("gone", queue.Envelope{}, "h@press.test")
	r.settle("press.test", deliveredOutcome)
	waitFor(t, func() bool { return r.q.Depth(start).Recipients == 7 })
	return r, ids
}

func TestSelectors(t *testing.T) {
	t.Parallel()
	r, ids := fill(t, func(o *Options) { o.Lanes = fakeLanes{} })
	names := make(map[string]string)
	for name, id := range ids {
		names[id] = name
	}
	for name, c := range map[string]struct {
		sel        wire.Selector
		want       string // messages, oldest first
		recipients int
	}{
		"all":                 {wire.Selector{}, "old mixed held null sub", 7},
		"domain":              {wire.Selector{Domain: "shop.test"}, "old held sub", 3},
		"domain in capitals":  {wire.Selector{Domain: "SHOP.test"}, "old held sub", 3},
		"below a domain":      {wire.Selector{Domain: "*.shop.test"}, "sub", 1},
		"sender":              {wire.Selector{Sender: "b@other.test"}, "mixed", 1},
		"sender's domain":     {wire.Selector{Sender: "@sender.test"}, "old held sub", 5},
		"null sender":         {wire.Selector{Sender: "<>"}, "null", 1},
		"recipient":           {wire.Selector{Recipient: "ben@shop.test"}, "old", 1},
		"tag":                 {wire.Selector{Tag: "week47"}, "held", 1},
		"status held":         {wire.Selector{Status: []string{"held"}}, "held", 1},
		"status waiting":      {wire.Selector{Status: []string{"waiting", "active"}}, "old mixed null sub", 6},
		"class":               {wire.Selector{Class: "greylisted"}, "old", 1},
		"class of the ended":  {wire.Selector{Class: "invalid-recipient"}, "", 0},
		"older than":          {wire.Selector{OlderThan: "4h"}, "old", 2},
		"id":                  {wire.Selector{IDs: []string{ids["held"], ids["null"]}}, "held null", 2},
		"id and domain":       {wire.Selector{IDs: []string{ids["old"]}, Domain: "shop.test"}, "old", 1},
		"tag and domain":      {wire.Selector{Tag: "week46", Domain: "shop.test"}, "old", 1},
		"site":                {wire.Selector{Site: "bigmail"}, "old mixed", 2},
		"site without domain": {wire.Selector{Site: "nobody"}, "", 0},
		"nothing":             {wire.Selector{Domain: "press.test"}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := r.client.List(t.Context(), c.sel, "", 0)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			shown := 0
			for _, m := range list.Messages {
				got = append(got, names[m.ID])
				shown += len(m.Recipients)
			}
			if strings.Join(got, " ") != c.want || shown != c.recipients || list.Next != "" {
				t.Errorf("%q with %d recipients, want %q with %d", got, shown, c.want, c.recipients)
			}
			counted, err := r.client.Act(t.Context(), "cancel", wire.Action{Selector: c.sel, All: true, DryRun: true})
			if err != nil || counted.Recipients != c.recipients || !counted.DryRun {
				t.Errorf("dry run: %+v %v, want %d", counted, err, c.recipients)
			}
		})
	}
	if got := r.q.Depth(start).Recipients; got != 7 {
		t.Errorf("after the dry runs %d recipients are left", got)
	}
}

// What the queue selects and what is counted beforehand must be the same.
func TestActionsTouchWhatWasCounted(t *testing.T) {
	t.Parallel()
	for name, sel := range map[string]wire.Selector{
		"domain":      {Domain: "shop.test"},
		"pattern":     {Domain: "*.shop.test"},
		"class":       {Class: "greylisted"},
		"null sender": {Sender: "<>"},
		"sender":      {Sender: "@sender.test"},
		"recipient":   {Recipient: "ben@shop.test"},
		"older than":  {OlderThan: "4h"},
		"site":        {Site: "bigmail"},
		"no site":     {Site: "nobody"},
		"held":        {Status: []string{"held"}},
		"class, tag":  {Class: "greylisted", Tag: "week46"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _ := fill(t, func(o *Options) { o.Lanes = fakeLanes{} })
			counted, err := r.client.Act(t.Context(), "cancel", wire.Action{Selector: sel, DryRun: true})
			if err != nil {
				t.Fatal(err)
			}
			done, err := r.client.Act(t.Context(), "cancel", wire.Action{Selector: sel})
			if err != nil || done.Recipients != counted.Recipients {
				t.Errorf("%+v (%v), counted %+v", done, err, counted)
			}
			if left := r.q.Depth(start).Recipients; left != int64(7-counted.Recipients) {
				t.Errorf("%d recipients are left of 7, %d were counted", left, counted.Recipients)
			}
			list, err := r.client.List(t.Context(), sel, "", 0)
			if err != nil || len(list.Messages) != 0 {
				t.Errorf("still there: %+v %v", list.Messages, err)
			}
		})
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	r, ids := fill(t, nil)
	act := func(name string, a wire.Action) wire.ActionResult {
		t.Helper()
		result, err := r.client.Act(t.Context(), name, a)
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	one := func(name string) wire.Recipient {
		t.Helper()
		m, err := r.client.Message(t.Context(), ids[name])
		if err != nil {
			t.Fatal(err)
		}
		return m.Recipients[0]
	}
	if before := one("old"); !before.DueAt.After(start) || before.Attempts != 1 || before.Last.Class != "greylisted" {
		t.Fatalf("deferred recipient is %+v", before)
	}
	r.pass(time.Minute)
	if got := act("retry", wire.Action{Selector: wire.Selector{IDs: []string{ids["old"]}, Class: "greylisted"}}); got.Recipients != 1 {
		t.Errorf("retry: %+v", got)
	}
	if after := one("old"); !after.DueAt.Equal(start.Add(time.Minute)) {
		t.Errorf("after the retry: %+v", after)
	}
	if got := act("hold", wire.Action{Selector: wire.Selector{IDs: []string{ids["null"]}}, Reason: "looks odd"}); got.Recipients != 1 || one("null").Status != "held" {
		t.Errorf("hold: %+v %+v", got, one("null"))
	}
	// Release means what is held, and says how much that was.
	if got := act("release", wire.Action{All: true, DryRun: true}); got.Recipients != 2 {
		t.Errorf("release would touch %+v", got)
	}
	if got := act("release", wire.Action{Selector: wire.Selector{Tag: "week47"}}); got.Recipients != 1 || one("held").Status != "waiting" {
		t.Errorf("release: %+v %+v", got, one("held"))
	}
	if got := act("fail", wire.Action{Selector: wire.Selector{IDs: []string{ids["mixed"]}}, Reason: "wrong list"}); got.Recipients != 1 {
		t.Errorf("fail: %+v", got)
	}
	h, err := r.client.History(t.Context(), ids["mixed"])
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, e := range h.Events {
		texts = append(texts, e.Kind+" "+e.Recipient+" "+e.Text)
	}
	if last := texts[len(texts)-1]; last != "failed dora@school.test wrong list" {
		t.Errorf("history is %q", texts)
	}
	if got := act("cancel", wire.Action{All: true}); got.Recipients != 6 {
		t.Errorf("cancel: %+v", got)
	}
}

func TestActionRefusals(t *testing.T) {
	t.Parallel()
	r, _ := fill(t, nil)
	for name, c := range map[string]struct {
		action, body string
		status       int
		text         string
	}{
		"everything by mistake":  {"cancel", `{}`, 400, `"all"`},
		"empty selector":         {"cancel", `{"selector":{}}`, 400, `"all"`},
		"typo in the selector":   {"cancel", `{"selector":{"domian":"shop.test"},"all":true}`, 400, "domian"},
		"unknown action":         {"delete", `{"all":true}`, 404, "retry, hold"},
		"bad domain":             {"cancel", `{"selector":{"domain":"shop test"}}`, 400, "*.example.test"},
		"bad sender":             {"cancel", `{"selector":{"sender":"anna"}}`, 400, "<>"},
		"bad recipient":          {"cancel", `{"selector":{"recipient":"anna"}}`, 400, "recipient"},
		"bad id":                 {"cancel", `{"selector":{"ids":["hello"]}}`, 400, "not the ID"},
		"id that is not there":   {"cancel", `{"selector":{"ids":["01aaaaaaaaaaaaaaaaaaaaaaaa","0"]}}`, 409, "several"},
		"prefix of nothing":      {"cancel", `{"selector":{"ids":["7zzzz"]}}`, 404, "no such message"},
		"status of the past":     {"cancel", `{"selector":{"status":["delivered"]}}`, 400, "waiting, active or held"},
		"unknown class":          {"cancel", `{"selector":{"class":"full"}}`, 400, "mailbox-full"},
		"unknown status":         {"cancel", `{"selector":{"status":["stuck"]}}`, 400, "waiting"},
		"older than what":        {"cancel", `{"selector":{"older_than":"5"}}`, 400, "older_than"},
		"pace of a cancel":       {"cancel", `{"all":true,"pace":5}`, 400, "retry and release alone"},
		"a hold at once":         {"hold", `{"all":true,"at_once":true}`, 400, "retry and release alone"},
		"at once and a pace":     {"retry", `{"all":true,"at_once":true,"pace":5}`, 400, "instead"},
		"negative pace":          {"retry", `{"all":true,"pace":-5}`, 400, "per second"},
		"for of a hold":          {"hold", `{"all":true,"for":"1h"}`, 400, "suspend alone"},
		"reason of two lines":    {"fail", `{"all":true,"reason":"a\r\nX: b"}`, 400, "one line"},
		"endless reason":         {"fail", `{"all":true,"reason":"` + strings.Repeat("x", 501) + `"}`, 400, "one line"},
		"site without a table":   {"cancel", `{"selector":{"site":"bigmail"}}`, 501, "not available"},
		"suspend without a room": {"suspend", `{"selector":{"domain":"shop.test"}}`, 501, "not available"},
		"endless body":           {"cancel", `{"reason":"` + strings.Repeat("x", maxJSON) + `"}`, 413, "larger"},
	} {
		t.Run(name, func(t *testing.T) {
			var p wire.Problem
			if status := r.ask("POST", "/v1/queue/"+c.action, c.body, &p); status != c.status || !strings.Contains(p.Text, c.text) {
				t.Errorf("%d %q, want %d with %q", status, p.Text, c.status, c.text)
			}
		})
	}
	if got := r.q.Depth(start).Recipients; got != 7 {
		t.Errorf("%d recipients are left of 7", got)
	}
}

func TestPacedRetry(t *testing.T) {
	t.Parallel()
	var woken atomic.Int32
	r := newRoom(t, func(o *Options) { o.Wake = func(string) { woken.Add(1) } })
	for i := range 30 {
		r.put(queue.Envelope{}, fmt.Sprintf("a%d@bank.test", i))
		r.settle("bank.test", greylistedOutcome)
	}
	waitFor(t, func() bool { return r.q.Depth(start).Waiting == 30 })
	began := time.Now()
	result, err := r.client.Act(t.Context(), "retry", wire.Action{Selector: wire.Selector{Class: "greylisted"}, Pace: 29})
	if err != nil || !result.Paced || result.Recipients != 30 || result.Messages != 30 {
		t.Fatalf("%+v %v", result, err)
	}
	waitFor(t, func() bool { return r.q.Depth(start).Due == 30 })
	// Two at a time, twenty-nine in a second: all but the last two are waited for.
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("all of them were due after %v", took)
	}
	if n := woken.Load(); n < 14 {
		t.Errorf("the destination was woken %d times, not with each part", n)
	}
}

func TestPacedRelease(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	for i := range 3 {
		r.put(queue.Envelope{Held: true}, fmt.Sprintf("a%d@bank.test", i))
	}
	result, err := r.client.Act(t.Context(), "release", wire.Action{All: true, Pace: 2})
	if err != nil || !result.Paced || r.q.Depth(start).Held == 0 {
		t.Fatalf("%+v %v", result, err)
	}
	waitFor(t, func() bool { return r.q.Depth(start).Held == 0 })
}

func TestAtOnce(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]wire.Action{
		"asked for":          {All: true, AtOnce: true},
		"less than a second": {All: true},
	} {
		r := newRoom(t, nil)
		n := 3
		if a.AtOnce {
			n = defaultPace + 1
		}
		recipients := make([]string, n)
		for i := range recipients {
			recipients[i] = fmt.Sprintf("a%d@bank.test", i)
		}
		r.put(queue.Envelope{Held: true}, recipients...)
		result, err := r.client.Act(t.Context(), "release", a)
		if err != nil || result.Paced || result.Recipients != n || r.q.Depth(start).Held != 0 {
			t.Errorf("%s: %+v %v", name, result, err)
		}
	}
}

func TestPacedRetryEndsAtTheStop(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	for i := range 3 {
		r.put(queue.Envelope{}, fmt.Sprintf("a%d@bank.test", i))
		r.settle("bank.test", greylistedOutcome)
	}
	waitFor(t, func() bool { return r.q.Depth(start).Waiting == 3 })
	if _, err := r.client.Act(t.Context(), "retry", wire.Action{All: true, Pace: 1}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return r.q.Depth(start).Due >= 1 })
	r.stop() // the room's cleanup waits for the server
}

func TestRetryWakesItsDestinations(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sel  func(ids map[string]string) wire.Selector
		want []string
	}{
		"domain":  {func(map[string]string) wire.Selector { return wire.Selector{Domain: "shop.test"} }, []string{"shop.test"}},
		"message": {func(ids map[string]string) wire.Selector { return wire.Selector{IDs: []string{ids["old"]}} }, []string{"bank.test", "shop.test"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var woken []string
			r, ids := fill(t, func(o *Options) {
				o.Wake = func(domain string) {
					mu.Lock()
					defer mu.Unlock()
					woken = append(woken, domain)
				}
			})
			for _, action := range []string{"hold", "release", "retry"} {
				if _, err := r.client.Act(t.Context(), action, wire.Action{Selector: c.sel(ids)}); err != nil {
					t.Fatal(err)
				}
			}
			slices.Sort(woken)
			if !slices.Equal(woken, c.want) {
				t.Errorf("woken are %q, want %q", woken, c.want)
			}
		})
	}
}

func TestListInParts(t *testing.T) {
	t.Parallel()
	r, _ := fill(t, nil)
	var got []string
	after := ""
	for {
		part, err := r.client.List(t.Context(), wire.Selector{}, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(part.Messages) > 2 {
			t.Fatalf("%d messages", len(part.Messages))
		}
		for _, m := range part.Messages {
			got = append(got, m.ID)
		}
		if after = part.Next; after == "" {
			break
		}
	}
	if len(got) != 5 || !slices.IsSorted(got) || len(slices.Compact(got)) != 5 {
		t.Errorf("got %q", got)
	}
}

func TestListShowsFewOfManyRecipients(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprintf("a%d@shop.test", i))
	}
	r.put(queue.Envelope{}, many...)
	list, err := r.client.List(t.Context(), wire.Selector{}, "", 0)
	if err != nil || len(list.Messages) != 1 || len(list.Messages[0].Recipients) != 20 || list.Messages[0].RecipientCount != 50 {
		t.Errorf("%+v %v", list, err)
	}
	m, err := r.client.Message(t.Context(), list.Messages[0].ID)
	if err != nil || len(m.Recipients) != 50 {
		t.Errorf("%d recipients, %v", len(m.Recipients), err)
	}
}

func TestListRefusals(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	for query, text := range map[string]string{
		"limit=0": "from 1 to 1000", "limit=5000": "from 1 to 1000", "after=xyz": "after", "domian=x": `"domian"`, "tag=a&tag=b": "once",
	} {
		var p wire.Problem
		if status := r.ask("GET", "/v1/queue?"+query, "", &p); status != 400 || !strings.Contains(p.Text, text) {
			t.Errorf("%s: %d %q", query, status, p.Text)
		}
	}
}

func TestMessageLives(t *testing.T) {
	t.Parallel()
	r, ids := fill(t, nil)
	ended, err := r.client.Message(t.Context(), ids["gone"])
	if err != nil {
		t.Fatal(err)
	}
	rcpt := ended.Recipients[0]
	if !ended.Ended || rcpt.Status != "delivered" || rcpt.Attempts != 1 || rcpt.Last.MX != "mx.shop.test" || rcpt.Last.IP != "192.0.2.25" || !rcpt.DueAt.IsZero() {
		t.Errorf("ended message is %+v", ended)
	}
	h, err := r.client.History(t.Context(), ids["gone"])
	if err != nil || len(h.Events) != 2 || h.Events[0].Kind != "accepted" || h.Events[1].Kind != "delivered" || h.Events[1].TransferSeconds != 0.005 || h.Message == nil {
		t.Errorf("its history is %+v %v", h, err)
	}
	_, err = r.client.Content(t.Context(), ids["gone"])
	var refused *client.Refused
	if !errors.As(err, &refused) || refused.HTTP != 404 || !strings.Contains(refused.Text, "last recipient") {
		t.Errorf("its content: %v", err)
	}
	waiting, err := r.client.Message(t.Context(), ids["old"])
	if err != nil || waiting.Ended || len(waiting.Recipients) != 2 || waiting.Tag != "week46" {
		t.Errorf("waiting message is %+v %v", waiting, err)
	}
	// A unique beginning is enough, in either case.
	prefix := strings.ToUpper(ids["old"][:8])
	if m, err := r.client.Message(t.Context(), prefix); err != nil || m.ID != ids["old"] {
		t.Errorf("by prefix: %v %v", m.ID, err)
	}
	for _, path := range []string{"7zzzzzzzzzzzzzzzzzzzzzzzzz", "7z"} {
		for _, rest := range []string{"", "/history", "/content"} {
			var p wire.Problem
			if status := r.ask("GET", "/v1/messages/"+path+rest, "", &p); status != 404 {
				t.Errorf("%s%s: %d %q", path, rest, status, p.Text)
			}
		}
	}
}

func TestUnknownPath(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	var p wire.Problem
	if status := r.ask("DELETE", "/v1/messages/x", "", &p); status != 404 || !strings.Contains(p.Text, "docs/api.md") {
		t.Errorf("%d %q", status, p.Text)
	}
}

// lateHistory is a queue that has forgotten a message whose last write is still
// on its way.
type lateHistory struct {
	Queue
	asked int
}

func (q *lateHistory) Message(queue.ID) (*queue.Message, error) { return nil, queue.ErrNotFound }

func (q *lateHistory) History(id queue.ID) ([]queue.Event, error) {
	env := &queue.Envelope{ID: id, Recipients: []queue.Recipient{{Address: "a@shop.test", Domain: "shop.test"}}}
	events := []queue.Event{{Kind: queue.EventAccepted, ID: id, Envelope: env}}
	if q.asked++; q.asked > 3 {
		events = append(events, queue.Event{Kind: queue.EventFailed, ID: id, Recipient: "a@shop.test", Outcome: &refusedOutcome})
	}
	return events, nil
}

func TestEndOnItsWayToTheDisk(t *testing.T) {
	t.Parallel()
	q := &lateHistory{}
	s := &Server{opts: Options{Queue: q}}
	m, err := s.lookUp(queue.ID{15: 1})
	if err != nil || !m.Ended || m.Recipients[0].Status != "failed" {
		t.Errorf("%+v %v", m, err)
	}
}
