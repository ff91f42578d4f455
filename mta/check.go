package mta

import (
	"context"
	"log/slog"

	"postrider/config"
	"postrider/mta/api"
	"postrider/mta/api/wire"
	"postrider/queue"
)

// CheckQueue reads the whole store of a server that does not run, and tells
// what does not fit. It changes nothing.
func CheckQueue(ctx context.Context, cfg *config.Config, log *slog.Logger) (wire.Check, error) {
	report, err := queue.CheckDir(ctx, queue.Options{Dir: stateDir(cfg.StateDir).queue(), Logger: log})
	if err != nil {
		return wire.Check{}, err
	}
	return api.CheckOf(&report), nil
}
