package dkim

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// verifyAll prints, for each file named on its input, the file and the number
// of valid signatures.
const verifyAll = `
import dkim, json, sys
records = json.load(open(sys.argv[1]))
def txt(name, timeout=5):
    return records.get(name.decode().rstrip("."), "").encode()
for path in sys.argv[2:]:
    message = open(path, "rb").read()
    count = message.count(b"DKIM-Signature:")
    valid = sum(1 for i in range(count) if dkim.DKIM(message).verify(idx=i, dnsfunc=txt))
    print(path, valid)
`

// TestPythonVerifies asks an independent implementation, python3-dkim.
func TestPythonVerifies(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import dkim, nacl").Run(); err != nil {
		t.Skipf("python3-dkim and python3-nacl are not installed: %v", err)
	}
	f := newFixture(t, "example.test r rsa", "example.test e ed25519")
	dir := t.TempDir()
	records, err := json.Marshal(f.records)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-c", verifyAll, filepath.Join(dir, "records")}
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("records", records)
	want := map[string]int{}
	for name, body := range bodies {
		signed := f.sign(t, header, body)
		path := write(strings.ReplaceAll(name, " ", "-"), []byte(signed))
		want[path] = 2
		args = append(args, path)
		path += ".changed"
		write(filepath.Base(path), []byte("Subject: added\r\n"+signed))
		want[path] = 0
		args = append(args, path)
	}
	out, err := exec.Command(python, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for path, n := range want {
		if line := fmt.Sprintf("%s %d\n", path, n); !strings.Contains(string(out), line) {
			t.Errorf("%q is missing in\n%s", line, out)
		}
	}
}
