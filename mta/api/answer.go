package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"postrider/mta/api/wire"
	"postrider/mta/compose"
	"postrider/mta/intake"
	"postrider/mta/mailaddr"
	"postrider/queue"
)

// refusal is an error that knows its HTTP status.
type refusal struct {
	status int
	body   wire.Problem
}

func (r *refusal) Error() string { return r.body.Text }

// problem makes a refusal; the text is for the client.
func problem(status int, format string, args ...any) error {
	return &refusal{status, wire.Problem{Text: fmt.Sprintf(format, args...)}}
}

// answer writes JSON.
func answer(w http.ResponseWriter, status int, body any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // nosniff is set, and addresses have angle brackets
	if err := enc.Encode(body); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a client that has gone is nobody's trouble
	return nil
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, err error) {
	r := refusalOf(err)
	if r.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "60")
	}
	_ = answer(w, r.status, r.body)
}

// fail answers with an error, and logs what is our own fault.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if refusalOf(err).status == http.StatusInternalServerError {
		s.log.Error("http request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	refuse(w, err)
}

// refusalOf finds the answer that an error deserves.
func refusalOf(err error) *refusal {
	var known *refusal
	var refused *intake.Error
	var part *compose.Error
	var address *mailaddr.Error
	var tooLarge *http.MaxBytesError
	status := http.StatusInternalServerError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &refused):
		return &refusal{statusOf(refused), wire.Problem{Text: refused.Text, Code: refused.Code, Status: refused.Status}}
	case errors.As(err, &tooLarge):
		return problem(http.StatusRequestEntityTooLarge, "the body is larger than %d octets", tooLarge.Limit).(*refusal)
	case errors.As(err, &part), errors.As(err, &address):
		status = http.StatusUnprocessableEntity
	case errors.Is(err, queue.ErrNotFound):
		return problem(http.StatusNotFound, "no such message: it was never here, or its history has been cut").(*refusal)
	case errors.Is(err, queue.ErrFull), errors.Is(err, queue.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		status = http.StatusServiceUnavailable
	}
	return &refusal{status, wire.Problem{Text: err.Error()}}
}

// statusOf turns what an SMTP client would be told into an HTTP status.
func statusOf(err *intake.Error) int {
	switch {
	case err.Temporary():
		return http.StatusServiceUnavailable
	case err.Code == 552:
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusUnprocessableEntity
}

const (
	typeJSON    = "application/json"
	typeMessage = "message/rfc822"
)

// contentType answers the body's media type, where it is one of those
// allowed: no form can send them, so no foreign page can without CORS.
func contentType(r *http.Request, allowed ...string) (string, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err == nil {
		for _, a := range allowed {
			if kind == a {
				return kind, nil
			}
		}
	}
	return "", problem(http.StatusUnsupportedMediaType, "content type %q is not taken here: use %s", r.Header.Get("Content-Type"), either(allowed))
}

func either(list []string) string {
	if len(list) == 2 {
		return list[0] + " or " + list[1]
	}
	return list[0]
}

// readJSON reads one JSON value strictly.
func readJSON(w http.ResponseWriter, r *http.Request, limit int64, into any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			return problem(http.StatusBadRequest, "there is more after the JSON value")
		}
		return nil
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return err
	}
	return problem(http.StatusBadRequest, "the body is not the JSON that is wanted here: %v", err)
}
