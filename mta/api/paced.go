package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"postrider/mta/api/wire"
	"postrider/queue"
)

// pacedAction makes recipients due little by little.
type pacedAction struct {
	name   string // retry, release
	op     operation
	sel    selection
	pace   int // recipients per second
	reason string
}

// maxPaced is how many of them may be at work.
const maxPaced = 16

// startPaced hands to Run what was counted. What is left of it at a stop stays
// as it was.
func (s *Server) startPaced(ctx context.Context, p pacedAction, counted wire.ActionResult) (wire.ActionResult, error) {
	select {
	case s.paced <- p:
		counted.Paced = true
		return counted, nil
	case <-ctx.Done():
		return wire.ActionResult{}, ctx.Err()
	case <-s.stopping:
		return wire.ActionResult{}, problem(http.StatusServiceUnavailable, "the server is stopping")
	case <-time.After(time.Second):
		return wire.ActionResult{}, problem(http.StatusServiceUnavailable, "%d paced actions are at work: wait for one of them to end", maxPaced)
	}
}

// pace runs the paced actions until ctx ends.
func (s *Server) pace(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxPaced)
	for {
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		select {
		case <-ctx.Done():
			return
		case p := <-s.paced:
			wg.Go(func() {
				defer func() { <-slots }()
				total, err := s.runPaced(ctx, p)
				if err != nil {
					s.log.Warn("a paced "+p.name+" ended early", "recipients", total, "error", err)
					return
				}
				s.log.Info("a paced "+p.name+" is done", "recipients", total)
			})
		}
	}
}

// pacedStep is the most recipients that become due at a time: a tenth of a
// second's, in general.
const pacedStep = 500

func (s *Server) runPaced(ctx context.Context, p pacedAction) (total int, err error) {
	step := max(1, min(p.pace/10, pacedStep))
	var b pacedBatch
	flush := func() bool {
		var n int
		n, err = s.flushPaced(ctx, &p, &b)
		total += n
		return err == nil
	}
	walked := s.walk(ctx, &p.sel, queue.ID{}, func(m *queue.Message, hits []int) bool {
		b.add(m, hits)
		return b.recipients < step || flush()
	})
	if walked != nil {
		return total, walked
	}
	if err == nil && b.recipients > 0 {
		flush()
	}
	return total, err
}

// pacedBatch gathers the messages that are acted on at a time.
type pacedBatch struct {
	ids        []queue.ID
	domains    map[string]bool
	recipients int
}

func (b *pacedBatch) add(m *queue.Message, hits []int) {
	if b.domains == nil {
		b.domains = make(map[string]bool)
	}
	b.ids = append(b.ids, m.Envelope.ID)
	b.recipients += len(hits)
	for _, i := range hits {
		b.domains[m.Envelope.Recipients[i].Domain] = true
	}
}

// flushPaced acts on a batch, and waits for as long as that takes of the pace.
func (s *Server) flushPaced(ctx context.Context, p *pacedAction, b *pacedBatch) (int, error) {
	sel := p.sel.Selector
	sel.IDs = b.ids
	n, err := p.op(ctx, s.opts.Now(), sel, p.reason)
	if p.name == "retry" {
		for domain := range b.domains {
			s.wake(domain)
		}
	}
	pause := time.NewTimer(time.Duration(b.recipients) * time.Second / time.Duration(p.pace))
	defer pause.Stop()
	*b = pacedBatch{ids: b.ids[:0]}
	if err != nil {
		return n, err
	}
	select {
	case <-pause.C:
		return n, nil
	case <-ctx.Done():
		return n, ctx.Err()
	}
}
