package submission

import (
	"context"
	"time"

	"postrider/mta/intake"
	"postrider/queue"
)

// Message is a message on its way in.
type Message interface {
	Write(p []byte) (int, error)
	Commit(ctx context.Context) (queue.ID, error)
	Abort()
}

// ToReceiver is r as an [Intake].
func ToReceiver(r *intake.Receiver) Intake { return receiver{r} }

type receiver struct{ *intake.Receiver }

// Begin implements [Intake].
func (r receiver) Begin(now time.Time, m intake.Meta) (Message, error) {
	msg, err := r.Receiver.Begin(now, m)
	if err != nil {
		return nil, err // not msg: a nil pointer would be no nil Message
	}
	return msg, nil
}
