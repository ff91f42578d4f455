package queue

import "fmt"

// statesPerPart recipients share a state record: a claim of 100 of 10,000
// recipients rewrites two or three small records, not one large one.
const statesPerPart = 64

// recipientState is what became of one recipient so far.
type recipientState struct {
	due      int64 // when it is tried next
	lastAt   int64 // when last was made
	heldAt   int64 // since when it is held
	paused   int64 // how long it was held before: held mail does not age
	last     *Outcome
	attempts uint32
	status   Status // StatusActive is not used: see active
	warned   bool   // a delay notice was written
	active   bool   // in a claim; never stored
	dirty    bool   // differs from what a message has at the start; stored
	order    order  // what an operator wants done when the claim settles; never stored
}

func (s *recipientState) final() bool {
	return s.status >= StatusDelivered
}

const (
	stateWarned = 1 << iota
	stateOutcome
)

// encodePart writes the states of one part of a message: those that differ
// from the start.
func encodePart(w *recordWriter, states []recipientState) {
	n := 0
	for i := range states {
		if states[i].dirty {
			n++
		}
	}
	w.uint(uint64(n))
	for i := range states {
		s := &states[i]
		if !s.dirty {
			continue
		}
		var flags byte
		if s.warned {
			flags |= stateWarned
		}
		if s.last != nil {
			flags |= stateOutcome
		}
		w.byte(byte(i))
		w.byte(byte(s.status))
		w.byte(flags)
		w.uint(uint64(s.attempts))
		w.int(s.due)
		w.int(s.lastAt)
		w.int(s.heldAt)
		w.int(s.paused)
		if s.last != nil {
			w.outcome(s.last)
		}
	}
}

// decodePart reads what encodePart wrote into states, those of one part.
func decodePart(record []byte, states []recipientState) error {
	r, err := openRecord(record)
	if err != nil {
		return fmt.Errorf("read the state of recipients: %w", err)
	}
	for range r.count(8) {
		i := int(r.byte())
		status := Status(r.byte())
		if i >= len(states) || status > StatusCancelled || status == StatusActive {
			r.fail()
			break
		}
		s := &states[i]
		*s = recipientState{status: status, dirty: true}
		flags := r.byte()
		s.warned = flags&stateWarned != 0
		s.attempts = uint32(r.uint())
		s.due = r.int()
		s.lastAt = r.int()
		s.heldAt = r.int()
		s.paused = r.int()
		if flags&stateOutcome != 0 {
			s.last = r.outcome()
		}
	}
	if err := r.end(); err != nil {
		return fmt.Errorf("read the state of recipients: %w", err)
	}
	return nil
}
