package api

import (
	"strings"
	"testing"
	"time"

	"postrider/mta/api/wire"
	"postrider/queue"
)

// waitsOf gives what the list and the message say that each recipient waits
// for, by address; they must agree.
func (r *room) waitsOf(t *testing.T) map[string]string {
	t.Helper()
	list, err := r.client.List(t.Context(), wire.Selector{}, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, m := range list.Messages {
		one, err := r.client.Message(t.Context(), m.ID)
		if err != nil {
			t.Fatal(err)
		}
		alone := map[string]wire.Recipient{}
		for _, x := range one.Recipients {
			alone[x.Address] = x
		}
		for _, x := range m.Recipients {
			if y := alone[x.Address]; x.Waits != y.Waits || !x.WaitsUntil.Equal(y.WaitsUntil) {
				t.Errorf("%s waits for %q until %v in the list, for %q until %v alone", x.Address, x.Waits, x.WaitsUntil, y.Waits, y.WaitsUntil)
			}
			text := x.Waits
			if !x.WaitsUntil.IsZero() {
				text += " +" + x.WaitsUntil.Sub(start).String()
			}
			all[x.Address] = text
		}
	}
	return all
}

func TestWaits(t *testing.T) {
	t.Parallel()
	const disabled = "the mode is disabled: nothing leaves"
	for name, c := range map[string]struct {
		mode string
		list []wire.Suspension
		want map[string]string
	}{
		"a limit": {want: map[string]string{
			"anna@bank.test": "", // its schedule holds it, and its last outcome says why
			"ben@shop.test":  "",
			"i@bank.test":    "rests after a failure +1m0s",
			"later@new.test": "not to be sent before its time +10m0s",
			"emil@shop.test": "", // held
		}},
		"suspensions": {list: []wire.Suspension{
			{Domain: "*.shop.test", Reason: "their wish", Until: start.Add(time.Hour)},
			{Sender: "<>"},
			{Site: "bigmail"},
		}, want: map[string]string{
			"f@eu.shop.test": "suspended by hand (domain *.shop.test): their wish +1h0m0s",
			"G@Shop.Test":    "",
			"a@sender.test":  "suspended by hand (sender <>)",
			"anna@bank.test": "suspended by hand (site bigmail)",
		}},
		"everything": {mode: "disabled", want: map[string]string{"anna@bank.test": disabled, "dora@school.test": disabled, "emil@shop.test": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _ := fill(t, func(o *Options) {
				o.Lanes, o.Mode, o.Suspensions = fakeLanes{}, c.mode, &fakeSuspensions{list: c.list}
			})
			r.put(queue.Envelope{}, "i@bank.test")
			r.put(queue.Envelope{NotBefore: start.Add(10 * time.Minute)}, "later@new.test")
			got := r.waitsOf(t)
			for address, want := range c.want {
				if text, ok := got[address]; !ok || text != want {
					t.Errorf("%s waits for %q, not %q", address, text, want)
				}
			}
			if strings.Contains(got["anna@bank.test"], "rests") {
				t.Error("what is not due waits for a limit")
			}
		})
	}
}
