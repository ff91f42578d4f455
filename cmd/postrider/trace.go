package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postrider/mta/api/wire"
)

func newTraceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "trace ID",
		Short: "Tell everything that happened to a message",
		Long: `Tell everything that happened to a message: where it came from, each attempt
with the host, its words and the time it took, and what became of it.

The ID is the one that the sender was told ("queued as ..."), or a unique
beginning of it; it is also in the message's Received field and in the log.`,
		Args: cobra.ExactArgs(1),
	}
	server := addServerFlags(c)
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		client, err := server.connect(c)
		if err != nil {
			return err
		}
		defer client.Close()
		h, err := client.History(c.Context(), args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), h)
		}
		showHistory(c.OutOrStdout(), &h, time.Now(), time.Local)
		return nil
	}
	return c
}

// showHistory tells the story of a message.
func showHistory(w io.Writer, h *wire.History, now time.Time, zone *time.Location) {
	fmt.Fprintf(w, "message %s", h.ID)
	if m := h.Message; m != nil {
		fmt.Fprintf(w, " from %s, %s", angle(m.Sender), octets(m.Size))
		if m.MessageID != "" {
			fmt.Fprintf(w, ", Message-ID %s", plain(m.MessageID))
		}
	}
	fmt.Fprintln(w)
	if h.Message == nil {
		fmt.Fprintln(w, "(the beginning of its history has been cut)")
	}
	for i := range h.Events {
		e := &h.Events[i]
		fmt.Fprintf(w, "%s  %s\n", e.At.In(zone).Format("2006-01-02 15:04:05.000"), eventText(e, h.Message, zone))
	}
	if h.Message != nil {
		fmt.Fprintln(w, summary(h.Message, now))
	}
}

// eventText is one event in words.
func eventText(e *wire.Event, m *wire.Message, zone *time.Location) string {
	who := ""
	if e.Recipient != "" {
		who = angle(e.Recipient) + " "
	}
	var b strings.Builder
	switch e.Kind {
	case "accepted":
		b.WriteString("accepted")
		if m != nil {
			b.WriteString(" " + originText(&m.Origin) + ", for " + count(m.RecipientCount, "recipient", "recipients"))
			if text := wishes(m); text != "" {
				b.WriteString("; " + text)
			}
		}
		return b.String()
	case "delivered":
		fmt.Fprintf(&b, "%sdelivered after %s", who, span(seconds(e.DelaySeconds)))
	case "deferred":
		fmt.Fprintf(&b, "%sdeferred (attempt %d)", who, e.Attempt)
	case "failed":
		fmt.Fprintf(&b, "%sfailed for good after %s", who, span(seconds(e.DelaySeconds)))
	case "expired":
		fmt.Fprintf(&b, "%sgiven up after %s", who, span(seconds(e.DelaySeconds)))
	case "retried":
		fmt.Fprintf(&b, "%smade due by an operator", who)
	case "reported":
		return who + "report sent to the sender: message " + plain(e.Text)
	case "damaged":
		fmt.Fprintf(&b, "%sset aside, because it is damaged", who)
	default: // held, released, cancelled: and what a newer server may say
		b.WriteString(who + e.Kind)
	}
	if e.Outcome != nil {
		b.WriteString(outcomeText(e.Outcome))
	}
	if e.Text != "" {
		b.WriteString(": " + plain(e.Text))
	}
	var times []string
	if e.ConnectSeconds > 0 { // 0 on a connection that was open already
		times = append(times, "connect "+span(seconds(e.ConnectSeconds)))
	}
	if e.TransferSeconds > 0 {
		times = append(times, "transfer "+span(seconds(e.TransferSeconds)))
	}
	if len(times) > 0 {
		b.WriteString(" [" + strings.Join(times, ", ") + "]")
	}
	if !e.Next.IsZero() {
		fmt.Fprintf(&b, "; next try at %s", clock(e.Next, zone))
	}
	return b.String()
}

// outcomeText says where an attempt went, how it was protected and what came
// back.
func outcomeText(o *wire.Outcome) string {
	var b strings.Builder
	if o.MX != "" || o.IP != "" {
		fmt.Fprintf(&b, " by %s", plain(o.MX))
		if o.IP != "" {
			fmt.Fprintf(&b, " [%s]", o.IP)
		}
		switch {
		case o.TLS != "":
			fmt.Fprintf(&b, " over %s", plain(o.TLS))
		case o.Verdict == "delivered":
			b.WriteString(" in clear")
		}
		if o.Demand != "" {
			fmt.Fprintf(&b, " (asked for: %s)", plain(o.Demand))
		}
	}
	if o.Verdict != "delivered" && o.Stage != "" && o.Stage != "none" && o.Stage != "queue" {
		b.WriteString(", " + stageText(o.Stage))
	}
	b.WriteString(": " + replyWords(o))
	if o.Class != "" {
		fmt.Fprintf(&b, " (%s)", plain(o.Class))
	}
	if o.InDoubt {
		b.WriteString(", in doubt: the whole message was sent and the answer lost")
	}
	return b.String()
}

func stageText(stage string) string {
	switch stage {
	case "dns":
		return "looking up its hosts"
	case "policy":
		return "by policy"
	case "connect":
		return "connecting"
	case "greeting":
		return "waiting for the greeting"
	case "starttls":
		return "starting TLS"
	case "body":
		return "sending the content"
	case "final":
		return "at the end of the content"
	}
	return "at " + strings.ToUpper(stage)
}

// summary tells how it stands.
func summary(m *wire.Message, now time.Time) string {
	counts := make(map[string]int)
	var next time.Time
	for i := range m.Recipients {
		r := &m.Recipients[i]
		counts[r.Status]++
		if r.Status == "waiting" && (next.IsZero() || r.DueAt.Before(next)) {
			next = r.DueAt
		}
	}
	var parts []string
	for _, status := range []string{"delivered", "failed", "cancelled", "held", "active", "waiting"} {
		if counts[status] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[status], status))
		}
	}
	text := "now: " + strings.Join(parts, ", ") + " of " + count(m.RecipientCount, "recipient", "recipients")
	if !next.IsZero() {
		text += "; next try " + in(next, now)
	}
	return text
}
