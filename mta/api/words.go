package api

import (
	"fmt"
	"strings"

	"postrider/queue"
)

// The words of the closed sets, as they stand in JSON. They are part of the
// interface: a name in the code may change, a word here may not.
var (
	statusWords   = words{queue.StatusWaiting: "waiting", queue.StatusActive: "active", queue.StatusHeld: "held", queue.StatusDelivered: "delivered", queue.StatusFailed: "failed", queue.StatusCancelled: "cancelled"}
	verdictWords  = words{queue.Untried: "untried", queue.Delivered: "delivered", queue.Deferred: "deferred", queue.Failed: "failed"}
	scopeWords    = words{queue.ScopeRecipient: "recipient", queue.ScopeMessage: "message", queue.ScopeHost: "host", queue.ScopeSite: "site", queue.ScopeLocal: "local"}
	stageWords    = words{queue.StageNone: "none", queue.StageDNS: "dns", queue.StagePolicy: "policy", queue.StageConnect: "connect", queue.StageGreeting: "greeting", queue.StageEHLO: "ehlo", queue.StageSTARTTLS: "starttls", queue.StageMAIL: "mail", queue.StageRCPT: "rcpt", queue.StageDATA: "data", queue.StageBody: "body", queue.StageFinal: "final", queue.StageQueue: "queue"}
	priorityWords = words{queue.PriorityNormal: "normal", queue.PriorityBulk: "bulk", queue.PriorityUrgent: "urgent"}
	retWords      = words{queue.RetDefault: "", queue.RetFull: "full", queue.RetHeaders: "headers"}
	bodyWords     = words{queue.Body7Bit: "", queue.Body8BitMIME: "8bitmime"}
	eventWords    = words{queue.EventAccepted: "accepted", queue.EventDelivered: "delivered", queue.EventDeferred: "deferred", queue.EventFailed: "failed", queue.EventExpired: "expired", queue.EventHeld: "held", queue.EventReleased: "released", queue.EventCancelled: "cancelled", queue.EventRetried: "retried", queue.EventReported: "reported", queue.EventDamaged: "damaged"}
)

// notifyWords in the order in which they are written.
var notifyWords = []struct {
	bit  queue.Notify
	word string
}{{queue.NotifyNever, "never"}, {queue.NotifySuccess, "success"}, {queue.NotifyFailure, "failure"}, {queue.NotifyDelay, "delay"}}

type words []string

// word is the one for a value; a number where a newer store holds what this
// version does not know.
func word[T ~uint8](set words, value T) string {
	if int(value) < len(set) {
		return set[value]
	}
	return fmt.Sprintf("%d", value)
}

// value finds a word's value; the zero value for an empty text.
func value[T ~uint8](set words, text, what string) (T, error) {
	if text == "" {
		return 0, nil
	}
	for i, w := range set {
		if w == text {
			return T(i), nil
		}
	}
	return 0, problem(400, "%s %q is unknown: use %s", what, text, list(set))
}

// list names the words for an error.
func list(set words) string {
	out := ""
	for _, w := range set {
		if w == "" {
			continue
		}
		if out != "" {
			out += ", "
		}
		out += w
	}
	return out
}

// classList names the bounce classes for an error.
func classList() string {
	var names []string
	for _, c := range queue.Classes() {
		names = append(names, string(c))
	}
	return strings.Join(names, ", ")
}

func notifyOf(texts []string) (queue.Notify, error) {
	var n queue.Notify
next:
	for _, text := range texts {
		for _, w := range notifyWords {
			if w.word == text {
				n |= w.bit
				continue next
			}
		}
		return 0, problem(400, "notify %q is unknown: use never, or some of success, failure, delay", text)
	}
	// RFC 3461, section 4.1: NEVER stands alone.
	if n&queue.NotifyNever != 0 && n != queue.NotifyNever {
		return 0, problem(400, "notify never cannot go with others")
	}
	return n, nil
}

func notifyTexts(n queue.Notify) []string {
	var texts []string
	for _, w := range notifyWords {
		if n&w.bit != 0 {
			texts = append(texts, w.word)
		}
	}
	return texts
}
