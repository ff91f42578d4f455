package api

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"

	"postrider/mta/api/wire"
	"postrider/mta/pickup"
	"postrider/queue"
)

// export answers a message with its envelope, in the form that a pickup
// directory takes, for its open recipients that the selector in the query
// matches: GET /v1/messages/{id}/export. Held recipients and others do not go
// into one file, so status=held asks for the held ones, and without it the
// others are meant.
func (s *Server) export(w http.ResponseWriter, r *http.Request) error {
	id, err := s.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	wanted, err := selectorOf(r.URL.Query())
	if err != nil {
		return err
	}
	held := slices.Contains(wanted.Status, "held")
	switch {
	case len(wanted.IDs) > 0:
		return problem(400, "the message is named in the path: id does not go with it")
	case held && len(wanted.Status) > 1:
		return problem(400, "status=held goes alone: held recipients have a file of their own")
	case len(wanted.Status) == 0:
		wanted.Status = []string{"waiting", "active"}
	}
	sel, err := s.selectionOf(wanted)
	if err != nil {
		return err
	}
	sel.IDs = []queue.ID{id}
	var head []byte
	err = s.walk(r.Context(), &sel, queue.ID{}, func(m *queue.Message, hits []int) bool {
		head = pickup.AppendEnvelope(nil, m.Envelope, hits, held)
		return false
	})
	if err != nil {
		return err
	}
	c, err := s.opts.Queue.OpenMessage(id)
	if head == nil || errors.Is(err, queue.ErrNotFound) {
		if err == nil {
			c.Close()
		}
		return problem(http.StatusNotFound, "the message has no open recipient that matches")
	}
	if err != nil {
		return err
	}
	defer c.Close()
	s.writeContent(w, id, head, c)
	return nil
}

// writeContent answers a message's content, with head before it.
func (s *Server) writeContent(w http.ResponseWriter, id queue.ID, head []byte, c *queue.Content) {
	extendWrite(w, messageTimeout)
	w.Header().Set("Content-Type", typeMessage)
	w.Header().Set("Content-Length", strconv.FormatInt(int64(len(head))+c.Size, 10))
	for _, part := range [][]byte{head, c.Head, c.Data} {
		if _, err := w.Write(part); err != nil {
			return // the client has gone; its answer has begun
		}
	}
	if c.File != nil {
		if _, err := io.Copy(w, c.File); err != nil {
			s.log.Warn("content was cut off", "id", id.String(), "error", err)
		}
	}
}

// check answers what a check of the whole store finds: GET /v1/check. It reads
// everything, so there is one at a time.
func (s *Server) check(w http.ResponseWriter, r *http.Request) error {
	select {
	case s.checking <- struct{}{}:
		defer func() { <-s.checking }()
	default:
		return problem(http.StatusServiceUnavailable, "a check is at work already: wait for its end")
	}
	extendWrite(w, checkTimeout)
	report, err := s.opts.Queue.Check(r.Context())
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, CheckOf(&report))
}

// CheckOf is a report of the queue as the interface shows it.
func CheckOf(report *queue.Report) wire.Check {
	out := wire.Check{
		Messages: report.Messages, Recipients: report.Recipients, Notices: report.Notices, Bodies: report.Bodies, Histories: report.Histories,
		Leftovers: report.Leftovers,
		SetAside:  []string{}, Problems: []wire.CheckProblem{},
	}
	for _, id := range report.SetAside {
		out.SetAside = append(out.SetAside, id.String())
	}
	for _, p := range report.Problems {
		problem := wire.CheckProblem{Text: p.What}
		if p.ID != (queue.ID{}) {
			problem.ID = p.ID.String()
		}
		out.Problems = append(out.Problems, problem)
	}
	return out
}
