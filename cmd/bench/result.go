package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// result is one round of one scenario by one server, or the medians of
// several. What a scenario does not measure is 0.
type result struct {
	Scenario   string        `json:"scenario"`
	Server     string        `json:"server"`
	Variant    string        `json:"variant,omitempty"`
	Round      int           `json:"round,omitempty"` // 0: medians
	Messages   int           `json:"messages"`
	Elapsed    time.Duration `json:"elapsed_ns"` // first submission to last arrival at the sink
	Rate       float64       `json:"messages_per_second"`
	CPU        time.Duration `json:"cpu_per_message_ns"`
	PeakRSS    int64         `json:"peak_memory_octets"`
	Written    float64       `json:"written_octets_per_message"`
	Syncs      float64       `json:"syncs_per_message"`
	Unsynced   int           `json:"accepted_without_a_sync"` // see syncProof
	Proven     int           `json:"accepted_after_a_sync"`
	AcceptP50  time.Duration `json:"accept_p50_ns"`
	AcceptP99  time.Duration `json:"accept_p99_ns"`
	DeliverP50 time.Duration `json:"accept_to_delivered_p50_ns"`
	DeliverP99 time.Duration `json:"accept_to_delivered_p99_ns"`
	Ready      time.Duration `json:"start_to_ready_ns"`
	StartRSS   int64         `json:"memory_after_start_octets"`
	WakeUps    float64       `json:"idle_wakeups_per_second"`
	IdleCPU    float64       `json:"idle_cpu_share"`
	Lost       int           `json:"lost"`
	Duplicates int           `json:"duplicates"`
}

// brief is a line for a round that has just ended.
func (r result) brief() string {
	text := fmt.Sprintf("%-32s", label(r.Server, r.Variant))
	if r.Rate > 0 {
		text += fmt.Sprintf(" %8.0f messages/s  %.3f ms CPU ", r.Rate, ms(r.CPU))
	}
	if r.Scenario == "I" {
		text += fmt.Sprintf(" %.1f wake-ups/s, delivered after %.1f ms ", r.WakeUps, ms(r.DeliverP50))
	}
	if r.Ready > 0 {
		text += fmt.Sprintf(" ready in %.2f s", r.Ready.Seconds())
	}
	return text + fmt.Sprintf(" %4d MB", r.PeakRSS/1e6)
}

// machine is what the figures hold for.
type machine struct {
	CPUs    int      `json:"cpus"`
	Model   string   `json:"cpu_model"`
	Kernel  string   `json:"kernel"`
	Go      string   `json:"go"`
	Servers []string `json:"servers"`
	Disk    string   `json:"disk"`
	Date    string   `json:"date"`
}

func describeMachine(servers []string, dir string) machine {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return machine{
		CPUs: runtime.NumCPU(), Model: cpuModel(), Kernel: strings.TrimSpace(string(kernel)), Go: runtime.Version(),
		Servers: servers, Disk: fileSystemOf(dir), Date: time.Now().UTC().Format(time.DateOnly),
	}
}

func (m machine) String() string {
	return fmt.Sprintf("%s: %d CPUs (%s), Linux %s, %s, %s; %s", m.Date, m.CPUs, m.Model, m.Kernel, m.Disk, m.Go, strings.Join(m.Servers, ", "))
}

func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// fileSystemOf names the file system that holds a directory, and its options:
// with discard each unlink costs a TRIM.
func fileSystemOf(dir string) string {
	out, err := exec.Command("findmnt", "-n", "-o", "FSTYPE,OPTIONS", "-T", dir).Output()
	if err != nil {
		return "unknown file system"
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// report is all that a run has measured.
type report struct {
	Machine    machine         `json:"machine"`
	Medians    []result        `json:"medians"`
	Rounds     []result        `json:"rounds"`
	Signatures []signatureCost `json:"signatures,omitempty"`
}

// finish computes the medians of the rounds.
func (r *report) finish() {
	type key struct{ scenario, server, variant string }
	grouped := make(map[key][]result)
	var order []key
	for _, round := range r.Rounds {
		k := key{round.Scenario, round.Server, round.Variant}
		if _, ok := grouped[k]; !ok {
			order = append(order, k)
		}
		grouped[k] = append(grouped[k], round)
	}
	r.Medians = nil
	for _, k := range order {
		r.Medians = append(r.Medians, medianOf(grouped[k]))
	}
	slices.SortStableFunc(r.Medians, func(a, b result) int { return cmp.Compare(a.Scenario, b.Scenario) })
}

func medianOf(rounds []result) result {
	m := rounds[0]
	m.Round = 0
	m.Rate = median(rounds, func(r result) float64 { return r.Rate })
	m.Written = median(rounds, func(r result) float64 { return r.Written })
	m.Syncs = median(rounds, func(r result) float64 { return r.Syncs })
	m.WakeUps = median(rounds, func(r result) float64 { return r.WakeUps })
	m.IdleCPU = median(rounds, func(r result) float64 { return r.IdleCPU })
	m.PeakRSS = median(rounds, func(r result) int64 { return r.PeakRSS })
	m.StartRSS = median(rounds, func(r result) int64 { return r.StartRSS })
	m.Elapsed = median(rounds, func(r result) time.Duration { return r.Elapsed })
	m.CPU = median(rounds, func(r result) time.Duration { return r.CPU })
	m.AcceptP50 = median(rounds, func(r result) time.Duration { return r.AcceptP50 })
	m.AcceptP99 = median(rounds, func(r result) time.Duration { return r.AcceptP99 })
	m.DeliverP50 = median(rounds, func(r result) time.Duration { return r.DeliverP50 })
	m.DeliverP99 = median(rounds, func(r result) time.Duration { return r.DeliverP99 })
	m.Ready = median(rounds, func(r result) time.Duration { return r.Ready })
	m.Lost, m.Duplicates = 0, 0
	for _, r := range rounds {
		m.Lost += r.Lost
		m.Duplicates += r.Duplicates
	}
	return m
}

// median of an even number of rounds is the lower of the two in the middle, a
// value that was measured.
func median[T cmp.Ordered](rounds []result, of func(result) T) T {
	values := make([]T, len(rounds))
	for i, r := range rounds {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

// comparison is the rate against that of others: a server's against Postfix, a
// variant's against the first variant. ok is false for those themselves.
func (r *report) comparison(of result) (ratio float64, to string, ok bool) {
	for _, other := range r.Medians {
		switch {
		case other.Scenario != of.Scenario || other.Rate == 0 || of.Rate == 0:
		case of.Variant != "" && other.Server == of.Server:
			if other.Variant == of.Variant {
				return 0, "", false
			}
			return of.Rate / other.Rate, other.Variant, true
		case of.Variant == "" && other.Server == postfixName && of.Server != postfixName:
			return of.Rate / other.Rate, postfixName, true
		}
	}
	return 0, "", false
}

func (r *report) write(file string) error {
	out, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(out, '\n'), 0o644)
}

func readReport(file string) (*report, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(report)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}
