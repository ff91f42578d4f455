package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"postrider/mta/api/wire"
	"postrider/queue"
)

const idLength = 26

// find turns an ID, or a unique beginning of one, into the ID.
func (s *Server) find(text string) (queue.ID, error) {
	padded := text + strings.Repeat("0", max(0, idLength-len(text)))
	id, err := queue.ParseID(padded)
	if err != nil || text == "" {
		return id, problem(400, "%q is not the ID of a message, nor the beginning of one: it has letters and digits without i, l, o and u", text)
	}
	if len(text) == idLength {
		return id, nil
	}
	id, err = s.opts.Queue.Find(text)
	if errors.Is(err, queue.ErrAmbiguous) {
		return id, problem(http.StatusConflict, "several messages begin with %q: give more of the ID", text)
	}
	return id, err
}

// message answers an envelope and what became of its recipients.
func (s *Server) message(w http.ResponseWriter, r *http.Request) error {
	id, err := s.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	m, err := s.lookUp(id)
	if err != nil {
		return err
	}
	s.holds(s.opts.Now()).tell(m)
	return answer(w, http.StatusOK, m)
}

// The write that ends a message may be on its way when the queue forgets it:
// its history is looked at again for so long before it counts as complete.
const (
	endPatience = time.Second
	endPause    = 5 * time.Millisecond
)

// lookUp finds a message in the queue or, when it has ended, in the history.
func (s *Server) lookUp(id queue.ID) (*wire.Message, error) {
	for waited := time.Duration(0); ; waited += endPause {
		m, err := s.opts.Queue.Message(id)
		if err == nil {
			out := messageOf(m, all(m))
			return &out, nil
		}
		if !errors.Is(err, queue.ErrNotFound) {
			return nil, err
		}
		events, err := s.opts.Queue.History(id)
		if err != nil {
			return nil, err
		}
		ended, ok := fromHistory(events)
		if !ok {
			return nil, queue.ErrNotFound
		}
		if out := messageOf(ended, all(ended)); out.Ended || waited >= endPatience {
			out.Ended = true
			return &out, nil
		}
		time.Sleep(endPause)
	}
}

// content answers the message as it is sent.
func (s *Server) content(w http.ResponseWriter, r *http.Request) error {
	id, err := s.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	c, err := s.opts.Queue.OpenMessage(id)
	if errors.Is(err, queue.ErrNotFound) {
		return problem(http.StatusNotFound, "the content of this message is not here: it is kept until the last recipient is settled")
	}
	if err != nil {
		return err
	}
	defer c.Close()
	s.writeContent(w, id, nil, c)
	return nil
}

// extendWrite gives an answer more time than others have.
func extendWrite(w http.ResponseWriter, d time.Duration) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d)) // not every writer of a test has one
}

// history answers everything that happened to a message.
func (s *Server) history(w http.ResponseWriter, r *http.Request) error {
	id, err := s.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	events, err := s.opts.Queue.History(id)
	if err != nil {
		return err
	}
	out := wire.History{ID: id.String(), Events: make([]wire.Event, 0, len(events))}
	for i := range events {
		out.Events = append(out.Events, eventOf(&events[i]))
	}
	m, err := s.lookUp(id)
	switch {
	case err == nil:
		s.holds(s.opts.Now()).tell(m)
		out.Message = m
	case !errors.Is(err, queue.ErrNotFound):
		return err
	}
	return answer(w, http.StatusOK, out)
}

// The bounds of a list.
const (
	defaultListed    = 100
	maxListed        = 1000
	recipientsListed = 20 // of one message
)

// list answers a part of the queue.
func (s *Server) list(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	wanted, err := selectorOf(q, "limit", "after")
	if err != nil {
		return err
	}
	most, err := number(q, "limit", defaultListed, maxListed)
	if err != nil {
		return err
	}
	sel, err := s.selectionOf(wanted)
	if err != nil {
		return err
	}
	var after queue.ID
	if text := q.Get("after"); text != "" {
		if after, err = queue.ParseID(text); err != nil {
			return problem(400, "after: %v", err)
		}
	}
	out := wire.MessageList{Messages: []wire.Message{}}
	err = s.walk(r.Context(), &sel, after, func(m *queue.Message, hits []int) bool {
		if len(out.Messages) == most {
			out.Next = out.Messages[most-1].ID
			return false
		}
		out.Messages = append(out.Messages, messageOf(m, hits[:min(len(hits), recipientsListed)]))
		return true
	})
	if err != nil {
		return err
	}
	holds := s.holds(s.opts.Now())
	for i := range out.Messages {
		holds.tell(&out.Messages[i])
	}
	return answer(w, http.StatusOK, out)
}

// Waiting for the fate of a message looks at it more and more rarely.
const (
	firstLook = 2 * time.Millisecond
	lastLook  = 500 * time.Millisecond
)

// await answers a message when all of its recipients are final, or when the
// time is over.
func (s *Server) await(ctx context.Context, id queue.ID, d time.Duration) (*wire.Message, error) {
	over := time.NewTimer(d)
	defer over.Stop()
	for look := firstLook; ; look = min(2*look, lastLook) {
		m, err := s.lookUp(id)
		if err != nil || m.Ended {
			return m, err
		}
		pause := time.NewTimer(look)
		select {
		case <-pause.C:
			continue
		case <-over.C:
		case <-s.stopping:
		case <-ctx.Done():
		}
		pause.Stop()
		return m, nil
	}
}
