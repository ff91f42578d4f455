package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
)

// check runs the real "postrider queue check", of a server that runs or of the
// store that a killed one has left.
func (r *run) check(ctx context.Context, offline bool) error {
	args := []string{"queue", "check", "--config", r.config, "--json"}
	if offline {
		args = append(args, "--offline")
	}
	out, err := exec.CommandContext(ctx, r.Binary, args...).Output()
	var found struct {
		SetAside []string `json:"set_aside"`
		Problems []struct {
			ID   string `json:"id"`
			Text string `json:"text"`
		} `json:"problems"`
	}
	if jerr := json.Unmarshal(out, &found); jerr != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return fmt.Errorf("postrider %v: %w: %s", args, err, exit.Stderr)
		}
		return fmt.Errorf("postrider %v: %w", args, errors.Join(err, jerr))
	}
	r.report.Checks++
	for _, id := range found.SetAside {
		r.report.Corrupt = append(r.report.Corrupt, "set aside: "+id)
	}
	for _, p := range found.Problems {
		r.report.Corrupt = append(r.report.Corrupt, fmt.Sprintf("after kill %d: %s %s", r.report.Kills, p.ID, p.Text))
	}
	return nil
}
