package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// print writes the tables.
func (r *report) print(w io.Writer) {
	r.printRates(w)
	r.printIdle(w)
	r.printSignatures(w)
	r.printSyncs(w)
}

func newTable(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
}

func (r *report) printRates(w io.Writer) {
	t := newTable(w)
	fmt.Fprintln(t, "\tserver\tmsg/s\tcompared\tCPU/msg\tmemory\twritten/msg\tsyncs/msg\taccept p50\tp99\tdelivery p50\tp99\tready\tlost\ttwice\t")
	for _, m := range r.Medians {
		if m.Rate == 0 {
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%.0f\t%s\t%.3f ms\t%d MB\t%.1f KB\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t\n",
			m.Scenario, label(m.Server, m.Variant), m.Rate, r.compared(m), ms(m.CPU), m.PeakRSS/1e6, m.Written/1e3, syncsOf(m),
			short(m.AcceptP50), short(m.AcceptP99), deliverP50(m), short(m.DeliverP99), short(m.Ready), m.Lost, m.Duplicates)
	}
	t.Flush()
}

// compared is a cell of the table.
func (r *report) compared(m result) string {
	ratio, to, ok := r.comparison(m)
	switch {
	case !ok:
		return ""
	case to == postfixName:
		return fmt.Sprintf("%.1f x Postfix", ratio)
	}
	return fmt.Sprintf("%.0f %% of %s", 100*ratio, to)
}

func syncsOf(m result) string {
	if m.Proven+m.Unsynced == 0 && m.Syncs == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", m.Syncs)
}

func (r *report) printIdle(w io.Writer) {
	t := newTable(w)
	shown := false
	for _, m := range r.Medians {
		if m.Scenario != "I" {
			continue
		}
		if !shown {
			fmt.Fprintln(t, "\nidle\tmemory\twake-ups/s\tCPU\tready\tsingle message: accept p50\tp99\tdelivery p50\tp99\t")
			shown = true
		}
		fmt.Fprintf(t, "%s\t%d MB\t%.1f\t%.2f %%\t%s\t%s\t%s\t%s\t%s\t\n", m.Server, m.StartRSS/1e6, m.WakeUps, 100*m.IdleCPU,
			short(m.Ready), short(m.AcceptP50), short(m.AcceptP99), deliverP50(m), short(m.DeliverP99))
	}
	t.Flush()
}

// printSignatures tells what the signatures alone cost, and what a server took
// for them beyond what it takes for the same mail without.
func (r *report) printSignatures(w io.Writer) {
	if len(r.Signatures) == 0 {
		return
	}
	fmt.Fprintln(w, "\nsignatures of 4 KB, CPU time")
	plain, _ := r.find("K", "unsigned")
	for _, s := range r.Signatures {
		text := fmt.Sprintf("  %-8s hash and key alone %.3f ms, all of package dkim %.3f ms", s.Algorithm, ms(s.Operation), ms(s.Whole))
		for _, m := range r.Medians {
			if m.Scenario == "K" && strings.HasPrefix(m.Variant, s.Algorithm) {
				extra := m.CPU - plain.CPU
				text += fmt.Sprintf("; the server took %.3f ms more than unsigned: %.2f times hash and key", ms(extra), float64(extra)/float64(s.Operation))
				text += fmt.Sprintf("; %.3f ms in all: %.2f times unsigned and signature together", ms(m.CPU), float64(m.CPU)/float64(plain.CPU+s.Operation))
			}
		}
		fmt.Fprintln(w, text)
	}
}

// find is the median of a variant.
func (r *report) find(scenario, variant string) (result, bool) {
	for _, m := range r.Medians {
		if m.Scenario == scenario && m.Variant == variant {
			return m, true
		}
	}
	return result{}, false
}

func (r *report) printSyncs(w io.Writer) {
	shown := false
	for _, m := range r.Medians {
		if m.Proven+m.Unsynced == 0 {
			continue
		}
		if !shown {
			fmt.Fprintln(w, "\nwhat a 250 followed, one message after the other")
			shown = true
		}
		fmt.Fprintf(w, "  %s %-16s %d after a sync, %d without\n", m.Scenario, m.Server, m.Proven, m.Unsynced)
	}
}

// deliverP50 may be 0: half of the messages had arrived before their clients
// had read the 250.
func deliverP50(m result) string {
	if m.DeliverP50 == 0 && m.DeliverP99 > 0 {
		return "0.0 ms"
	}
	return short(m.DeliverP50)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// short writes a time for a table; nothing where it was not measured.
func short(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f ms", ms(d))
}
