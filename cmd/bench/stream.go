package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"postrider/mta/rehearsal"
	"postrider/mta/rehearsal/peers"
)

// sessions is how many clients submit at once.
const sessions = 20

// playStream submits messages over SMTP and waits until all have arrived.
func playStream(ctx context.Context, r *rig, t *turn) (res result, err error) {
	if t.variant.waiting > 0 {
		if err := r.layWaiting(ctx, t); err != nil {
			return res, err
		}
	}
	s, err := t.launch(ctx)
	if err != nil {
		return res, err
	}
	defer s.end()
	res.Ready, res.StartRSS = s.ready, memoryNow(s.proc.PID())
	if err := wait(ctx, t.settle); err != nil {
		return res, err
	}
	if s.before, err = measure(s.proc.PID()); err != nil {
		return res, err
	}
	if t.variant.dead > 0 {
		hole, err := newBlackHole(holeHost, 25)
		if err != nil {
			return res, err
		}
		defer hole.close()
		if err := submitDead(ctx, t.variant, t.way); err != nil {
			return res, err
		}
		if err := wait(ctx, t.variant.deadFor); err != nil {
			return res, err
		}
		if s.before, err = measure(s.proc.PID()); err != nil {
			return res, err
		}
	}
	loaded, began, err := t.submit(ctx, submissionAddr)
	if err != nil {
		return res, err
	}
	used, err := s.stop()
	if err != nil {
		return res, err
	}
	t.fill(&res, loaded, began, used)
	return res, nil
}

// submit sends the load of a turn to target and waits for it at the sink. What
// has not arrived when nothing comes any more is counted as lost, and the next
// round begins.
func (t *turn) submit(ctx context.Context, target string) (loaded *rehearsal.Result, began time.Time, err error) {
	o := rehearsal.LoadOptions{
		Target: target, Sessions: sessions, Messages: int64(t.messages), Size: t.size, Domains: t.domains, Way: t.way, Passage: t.passage,
	}
	if t.alone {
		o.Sessions, o.Way = 1, rehearsal.WayPipelined
	}
	load, err := rehearsal.NewLoad(o)
	if err != nil {
		return nil, began, err
	}
	began = time.Now()
	if loaded, err = runLoad(ctx, load, int64(t.messages)); err != nil {
		return nil, began, err
	}
	if err := arrived(ctx, t.sink, loaded.Copies); err != nil && !errors.Is(err, errStalled) {
		return nil, began, err
	}
	return loaded, began, nil
}

// runLoad sends a load of which every message has to be accepted.
func runLoad(ctx context.Context, load *rehearsal.Load, messages int64) (*rehearsal.Result, error) {
	loaded, err := load.Run(ctx)
	if err != nil {
		if loaded != nil {
			err = fmt.Errorf("%w (%s)", err, loaded.FirstError)
		}
		return nil, fmt.Errorf("load: %w", err)
	}
	if loaded.Accepted != messages {
		return nil, fmt.Errorf("load: %d of %d messages were accepted: %s", loaded.Accepted, messages, loaded.FirstError)
	}
	return loaded, nil
}

// fill notes what came of a load.
func (t *turn) fill(res *result, loaded *rehearsal.Result, began time.Time, used usage) {
	stats, delivery := t.sink.Stats(), t.passage.Percentiles()
	n := float64(t.messages)
	res.Messages, res.Elapsed = t.messages, stats.Last.Sub(began)
	if stats.Copies < loaded.Copies {
		res.Elapsed = time.Since(began)
	}
	res.Rate = float64(stats.Copies) / res.Elapsed.Seconds()
	res.CPU = time.Duration(float64(used.CPU) / n)
	res.PeakRSS, res.Written = used.PeakRSS, float64(used.BytesWritten)/n
	res.AcceptP50, res.AcceptP99 = loaded.Wait.P50, loaded.Wait.P99
	res.DeliverP50, res.DeliverP99 = delivery.P50, delivery.P99
	res.Lost, res.Duplicates = int(loaded.Copies-stats.Copies), int(stats.Duplicates)
}

const straightName = "straight"

// straight is no server: the load goes straight into the sink. Its CPU is
// that of load and sink together, which every other row has beside it.
type straight struct{}

func (straight) name() string    { return straightName }
func (straight) version() string { return "load straight into the sink" }
func (straight) missing() error  { return nil }

func (straight) start(context.Context, launch) (*peers.Process, error) {
	return nil, errors.New("there is no server to start: only loads can go straight into the sink")
}

func (straight) stop(*peers.Process, string) error { return nil }

// playStraight submits to the sink itself.
func playStraight(ctx context.Context, _ *rig, t *turn) (res result, err error) {
	if t.play != nil || len(t.variants) > 0 {
		return res, errors.New("only a plain load can go straight into the sink")
	}
	before, err := ownUsage()
	if err != nil {
		return res, err
	}
	loaded, began, err := t.submit(ctx, sinkHost+":25")
	if err != nil {
		return res, err
	}
	after, err := ownUsage()
	if err != nil {
		return res, err
	}
	t.fill(&res, loaded, began, after.minus(before))
	return res, nil
}

// ownUsage is what this process has used, without the children that it reaped.
func ownUsage() (usage, error) {
	u, err := measureOne(os.Getpid())
	u.CPU = ownCPU()
	return u, err
}
