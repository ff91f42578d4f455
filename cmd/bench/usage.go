package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is what a tree of processes has consumed: the processes alive now
// with all that they have reaped.
type usage struct {
	CPU          time.Duration
	BytesWritten int64 // handed to the block layer
	RSS          int64 // octets resident now
	PeakRSS      int64 // sum of each process's own peak
}

func (u usage) minus(o usage) usage {
	return usage{CPU: u.CPU - o.CPU, BytesWritten: u.BytesWritten - o.BytesWritten, RSS: u.RSS, PeakRSS: u.PeakRSS}
}

// clockTick is USER_HZ: 100 on every Linux that Go runs on.
const clockTick = time.Second / 100

// measure sums over a process and its descendants. What a dead child used is
// counted by the parent that reaped it (getrusage(2), RUSAGE_CHILDREN).
func measure(root int) (usage, error) {
	var total usage
	for _, pid := range tree(root) {
		u, err := measureOne(pid)
		if err != nil {
			if pid == root {
				return usage{}, err
			}
			continue // ended meanwhile: its parent has it
		}
		total.CPU += u.CPU
		total.BytesWritten += u.BytesWritten
		total.RSS += u.RSS
		total.PeakRSS += u.PeakRSS
	}
	return total, nil
}

func measureOne(pid int) (usage, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return usage{}, err
	}
	// The name in parentheses may hold anything: fields are counted after it.
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(f) < 15 {
		return usage{}, fmt.Errorf("%s/stat: %d fields", dir, len(f))
	}
	var ticks int64
	for _, i := range []int{11, 12, 13, 14} { // utime stime cutime cstime
		n, err := strconv.ParseInt(string(f[i]), 10, 64)
		if err != nil {
			return usage{}, err
		}
		ticks += n
	}
	return usage{
		CPU:          time.Duration(ticks) * clockTick,
		BytesWritten: field(filepath.Join(dir, "io"), "write_bytes:"),
		RSS:          field(filepath.Join(dir, "status"), "VmRSS:") * 1024,
		PeakRSS:      field(filepath.Join(dir, "status"), "VmHWM:") * 1024,
	}, nil
}

// field reads the number after a key; 0 where there is none.
func field(file, key string) int64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			f := strings.Fields(rest)
			if len(f) == 0 {
				return 0
			}
			n, _ := strconv.ParseInt(f[0], 10, 64)
			return n
		}
	}
	return 0
}

// tree lists a process and its descendants.
func tree(root int) []int {
	all := []int{root}
	for i := 0; i < len(all); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, t := range tasks {
			data, err := os.ReadFile(t)
			if err != nil {
				continue
			}
			for _, s := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(s); err == nil {
					all = append(all, pid)
				}
			}
		}
	}
	return all
}
