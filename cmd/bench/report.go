package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// result is one round of one scenario by one server.
type result struct {
	Scenario   string        `json:"scenario"`
	Server     string        `json:"server"`
	Round      int           `json:"round"`
	Messages   int           `json:"messages"`
	Elapsed    time.Duration `json:"elapsed_ns"` // first submission to last arrival at the sink
	Rate       float64       `json:"messages_per_second"`
	CPU        time.Duration `json:"cpu_per_message_ns"`
	PeakRSS    int64         `json:"peak_rss_octets"`
	Written    float64       `json:"written_octets_per_message"`
	Syncs      float64       `json:"syncs_per_message"` // 0 where they were not counted
	AcceptP50  time.Duration `json:"accept_p50_ns"`
	AcceptP99  time.Duration `json:"accept_p99_ns"`
	Lost       int           `json:"lost"`
	Duplicates int           `json:"duplicates"`
}

// machine is what the figures hold for.
type machine struct {
	CPUs    int      `json:"cpus"`
	Kernel  string   `json:"kernel"`
	Go      string   `json:"go"`
	Servers []string `json:"servers"`
	Disk    string   `json:"disk"`
	Date    string   `json:"date"`
}

func describeMachine(servers []string, dir string) machine {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return machine{
		CPUs: runtime.NumCPU(), Kernel: strings.TrimSpace(string(kernel)), Go: runtime.Version(),
		Servers: servers, Disk: fileSystemOf(dir), Date: time.Now().UTC().Format(time.DateOnly),
	}
}

// row is the median of the rounds of one server in one scenario.
type row struct {
	result
	ratio float64 // of the rate, against the first server of the scenario that is not Postrider; 0: none
}

func medianOf(rounds []result) result {
	m := rounds[0]
	pick := func(f func(result) float64) float64 {
		v := make([]float64, len(rounds))
		for i, r := range rounds {
			v[i] = f(r)
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	m.Rate = pick(func(r result) float64 { return r.Rate })
	m.CPU = time.Duration(pick(func(r result) float64 { return float64(r.CPU) }))
	m.PeakRSS = int64(pick(func(r result) float64 { return float64(r.PeakRSS) }))
	m.Written = pick(func(r result) float64 { return r.Written })
	m.Syncs = pick(func(r result) float64 { return r.Syncs })
	m.AcceptP50 = time.Duration(pick(func(r result) float64 { return float64(r.AcceptP50) }))
	m.AcceptP99 = time.Duration(pick(func(r result) float64 { return float64(r.AcceptP99) }))
	m.Lost, m.Duplicates = 0, 0
	for _, r := range rounds {
		m.Lost += r.Lost
		m.Duplicates += r.Duplicates
	}
	return m
}

// rows reduces rounds to one row per scenario and server, in order of first
// appearance, with the ratio to the peer of the same scenario.
func rows(results []result) []row {
	type key struct{ scenario, server string }
	grouped := make(map[key][]result)
	var order []key
	for _, r := range results {
		k := key{r.Scenario, r.Server}
		if _, ok := grouped[k]; !ok {
			order = append(order, k)
		}
		grouped[k] = append(grouped[k], r)
	}
	var all []row
	for _, k := range order {
		all = append(all, row{result: medianOf(grouped[k])})
	}
	for i := range all {
		for _, peer := range all {
			if peer.Scenario == all[i].Scenario && peer.Server == "postfix" && all[i].Server != "postfix" {
				all[i].ratio = all[i].Rate / peer.Rate
			}
		}
	}
	slices.SortStableFunc(all, func(a, b row) int { return cmp.Compare(a.Scenario, b.Scenario) })
	return all
}

func printTable(w io.Writer, results []result) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "scenario\tserver\tmsg/s\tx Postfix\tCPU/msg\tpeak RSS\twritten/msg\tsyncs/msg\taccept p50\tp99\tlost\tdup\t")
	for _, r := range rows(results) {
		ratio := ""
		if r.ratio > 0 {
			ratio = fmt.Sprintf("%.1f", r.ratio)
		}
		syncs := ""
		if r.Syncs > 0 {
			syncs = fmt.Sprintf("%.2f", r.Syncs)
		}
		fmt.Fprintf(t, "%s\t%s\t%.0f\t%s\t%.3f ms\t%d MB\t%.1f KB\t%s\t%s\t%s\t%d\t%d\t\n",
			r.Scenario, r.Server, r.Rate, ratio, ms(r.CPU), r.PeakRSS/1e6, r.Written/1e3, syncs,
			short(r.AcceptP50), short(r.AcceptP99), r.Lost, r.Duplicates)
	}
	t.Flush()
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func short(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f ms", ms(d))
}

func writeJSON(file string, m machine, results []result) error {
	out, err := json.MarshalIndent(struct {
		Machine machine  `json:"machine"`
		Results []result `json:"results"`
	}{m, results}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(out, '\n'), 0o644)
}
