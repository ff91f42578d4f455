package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postrider/mta/suppress"
	"postrider/queue"
)

var update = flag.Bool("update", false, "write the answers into docs/api.md")

const manual = "../../docs/api.md"

// An example is a fenced block of a request and, right after it, one of the
// answer.
var example = regexp.MustCompile("(?s)```http\n(.*?)```\n\n```http\n(.*?)```\n")

// IDs as the manual writes them.
const (
	waitingID = "01m81j18g0000000000000000a"
	newID     = "01m81j18g0000000000000000b"
)

// The manual's examples are run in their order against one server, and have
// to be answered as the manual says.
func TestManualExamples(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	suppressed, err := suppress.Open(suppress.Options{File: filepath.Join(t.TempDir(), "suppression")})
	if err != nil {
		t.Fatal(err)
	}
	r := newRoom(t, func(o *Options) {
		o.Suppressed, o.Suppressing = suppressed, true
		o.Lanes, o.Destinations, o.Suspensions = fakeLanes{}, fakeDestinations{}, &fakeSuspensions{}
	})
	names := map[string]string{waitingID: r.put(queue.Envelope{Tag: "statements", MessageID: "<1@sender.test>", Origin: queue.Origin{Via: "smtp", HELO: "web1"}}, "anna@bank.test").String()}
	r.settle("bank.test", greylistedOutcome)
	waitFor(t, func() bool { return r.q.Depth(start).Waiting == 1 })

	examples := example.FindAllSubmatchIndex(text, -1)
	if blocks := bytes.Count(text, []byte("```http\n")); len(examples) < 18 || blocks != 2*len(examples) {
		t.Fatalf("%s has %d blocks, of which %d examples of a request and its answer are found", manual, blocks, len(examples))
	}
	var out bytes.Buffer
	last := 0
	for _, at := range examples {
		request, want := string(text[at[2]:at[3]]), string(text[at[4]:at[5]])
		got := r.runExample(request, names)
		if got != want && !*update {
			t.Errorf("%s\nis answered\n%s\nwhere the manual says\n%s", request, got, want)
		}
		out.Write(text[last:at[4]])
		out.WriteString(got)
		last = at[5]
	}
	out.Write(text[last:])
	if *update {
		if err := os.WriteFile(manual, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// runExample runs a request of the manual and writes the answer as the manual
// does: with its IDs and its user, and without the chance in due times.
func (r *room) runExample(request string, names map[string]string) string {
	r.t.Helper()
	head, body, _ := strings.Cut(request, "\n\n")
	lines := strings.Split(strings.TrimSpace(head), "\n")
	method, path, ok := strings.Cut(lines[0], " ")
	if !ok {
		r.t.Fatalf("no request: %q", request)
	}
	kind := ""
	for _, line := range lines[1:] {
		if value, ok := strings.CutPrefix(line, "Content-Type: "); ok {
			kind = value
		}
	}
	for name, id := range names {
		path, body = strings.ReplaceAll(path, name, id), strings.ReplaceAll(body, name, id)
	}
	status, answer := r.socket(SocketName, method, path, kind, body)
	var value any
	if err := json.Unmarshal([]byte(answer), &value); err != nil {
		return fmt.Sprintf("HTTP/1.1 %d %s\n\n%s", status, http.StatusText(status), strings.ReplaceAll(answer, "\r\n", "\n"))
	}
	if object, ok := value.(map[string]any); ok && method == "POST" && object["id"] != nil {
		names[newID] = object["id"].(string)
	}
	var pretty bytes.Buffer
	json.Indent(&pretty, []byte(answer), "", "  ")
	shown := strings.TrimSpace(pretty.String())
	for name, id := range names {
		shown = strings.ReplaceAll(shown, id, name)
	}
	shown = regexp.MustCompile(`"(due_at|next)": "2026[^"]*"`).ReplaceAllString(shown, `"$1": "2026-11-22T12:05:00Z"`)
	shown = regexp.MustCompile(`"user": "[^"]*"`).ReplaceAllString(shown, `"user": "reports"`)
	return fmt.Sprintf("HTTP/1.1 %d %s\n\n%s\n", status, http.StatusText(status), shown)
}
