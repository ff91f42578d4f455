package mta

import (
	"context"
	"time"

	"postrider/mta/api/wire"
	"postrider/mta/delivery"
	"postrider/mta/dispatch"
	"postrider/queue"
)

// suspensions are those of the queue, as the API speaks of them.
type suspensions struct{ *queue.Queue }

func (s suspensions) Suspend(ctx context.Context, now time.Time, w wire.Suspension) error {
	return s.Queue.Suspend(ctx, now, queue.Suspension(w))
}

func (s suspensions) Resume(ctx context.Context, now time.Time, w wire.Suspension) ([]wire.Suspension, error) {
	ended, err := s.Queue.Resume(ctx, now, queue.Suspension(w))
	return toWire(ended), err
}

func (s suspensions) Suspensions(now time.Time) []wire.Suspension {
	return toWire(s.Queue.Suspensions(now))
}

func toWire(all []queue.Suspension) []wire.Suspension {
	out := make([]wire.Suspension, len(all))
	for i, s := range all {
		out[i] = wire.Suspension(s)
	}
	return out
}

// sitedPlanner tells the queue, which knows nothing of DNS, which site a domain
// belongs to, before mail for it is claimed: so that what is suspended by site
// stays where it is.
type sitedPlanner struct {
	*delivery.Planner
	sites dispatch.SiteTable
	queue *queue.Queue
}

// Plan implements dispatch.Planner.
func (p sitedPlanner) Plan(ctx context.Context, domain string) (*delivery.Plan, error) {
	plan, err := p.Planner.Plan(ctx, domain)
	if err == nil {
		p.queue.SetSite(time.Now(), domain, p.sites.Site(plan))
	}
	return plan, err
}
