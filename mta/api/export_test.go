package api

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"postrider/mta/api/client"
	"postrider/mta/api/wire"
	"postrider/queue"
)

func TestExport(t *testing.T) {
	t.Parallel()
	r, ids := fill(t, nil)
	if _, err := r.client.Act(t.Context(), "hold", wire.Action{Selector: wire.Selector{Recipient: "ben@shop.test"}}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		id   string
		sel  wire.Selector
		want string // receivers, and whether they are held
		http int    // of a refusal
	}{
		"open ones":          {id: "old", want: "<anna@bank.test>"},
		"held ones":          {id: "old", sel: wire.Selector{Status: []string{"held"}}, want: "<ben@shop.test> held"},
		"what is left":       {id: "mixed", want: "<dora@school.test>"},
		"by domain":          {id: "sub", sel: wire.Selector{Domain: "eu.shop.test"}, want: "<f@eu.shop.test>"},
		"by class":           {id: "old", sel: wire.Selector{Class: "greylisted"}, want: "<anna@bank.test>"},
		"another sender's":   {id: "sub", sel: wire.Selector{Sender: "<>"}, http: 404},
		"none is held":       {id: "sub", sel: wire.Selector{Status: []string{"held"}}, http: 404},
		"an ended message":   {id: "gone", http: 404},
		"held and the other": {id: "old", sel: wire.Selector{Status: []string{"held", "waiting"}}, http: 400},
		"two IDs":            {id: "old", sel: wire.Selector{IDs: []string{"01"}}, http: 400},
	} {
		t.Run(name, func(t *testing.T) {
			content, err := r.client.Export(t.Context(), ids[c.id], c.sel)
			var refused *client.Refused
			if c.http != 0 {
				if !errors.As(err, &refused) || refused.HTTP != c.http {
					t.Errorf("got %v, want %d", err, c.http)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer content.Close()
			text, err := io.ReadAll(content)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			head, message, ended := strings.Cut(string(text), "X-EndOfInjectedXHeaders: 1\r\n")
			for line := range strings.Lines(head) {
				if to, ok := strings.CutPrefix(line, "X-Receiver: "); ok {
					got = append(got, strings.TrimSpace(to))
				}
			}
			if strings.Contains(message, "X-Postrider-Hold: yes\r\n") {
				got = append(got, "held")
			}
			if !ended || strings.Join(got, " ") != c.want || !strings.HasSuffix(message, r.contentOf(ids[c.id])) {
				t.Errorf("%s\nwant %s", text, c.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	r, _ := fill(t, nil)
	report, err := r.client.Check(t.Context())
	if err != nil || report.Messages != 5 || report.Recipients != 7 || report.Bodies < 5 || len(report.Problems) != 0 || report.SetAside == nil {
		t.Errorf("%+v %v", report, err)
	}
	r.server.checking <- struct{}{} // somebody else's is at work
	var p wire.Problem
	if status := r.ask("GET", "/v1/check", "", &p); status != http.StatusServiceUnavailable {
		t.Errorf("a second check: %d %s", status, p.Text)
	}
}

func TestCheckTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	id := queue.ID{15: 1}
	got := CheckOf(&queue.Report{Leftovers: 3, SetAside: []queue.ID{id}, Problems: []queue.Problem{{ID: id, What: "a"}, {What: "b"}}})
	if got.Leftovers != 3 || len(got.SetAside) != 1 || got.SetAside[0] != id.String() || len(got.Problems) != 2 || got.Problems[0].ID != id.String() || got.Problems[1] != (wire.CheckProblem{Text: "b"}) {
		t.Errorf("%+v", got)
	}
}
