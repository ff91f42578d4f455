package sendmail

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"postrider/mta/api/client"
)

// drop puts a message into the pickup directory, where the server finds it
// when it is back. The name ends in .eml only when all of it is on disk.
func drop(dir string, env *client.Envelope, content io.Reader) (err error) {
	name := "sendmail-" + rand.Text()
	temporary := filepath.Join(dir, "."+name+".tmp")
	// The directory's group, which the server is in, may read it.
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o660)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(temporary)
		}
	}()
	w := bufio.NewWriter(f)
	writeEnvelope(w, env)
	_, err = io.Copy(w, content)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, filepath.Join(dir, name+".eml")); err != nil {
		return err
	}
	return syncDir(dir)
}

// droppable: an address can be written in angle brackets and read back.
func droppable(env *client.Envelope) bool {
	for _, address := range append([]string{env.Sender}, env.Recipients...) {
		if strings.ContainsAny(address, "<>") {
			return false
		}
	}
	return true
}

// writeEnvelope writes the lines that make the envelope of a file.
func writeEnvelope(w *bufio.Writer, env *client.Envelope) {
	fmt.Fprintf(w, "x-sender: <%s>", env.Sender)
	switch env.Options.Ret {
	case "full":
		w.WriteString(" RET=FULL")
	case "headers":
		w.WriteString(" RET=HDRS")
	}
	if env.Options.EnvID != "" {
		w.WriteString(" ENVID=" + env.Options.EnvID)
	}
	notify := ""
	if len(env.Options.Notify) > 0 {
		notify = " NOTIFY=" + strings.ToUpper(strings.Join(env.Options.Notify, ","))
	}
	for _, r := range env.Recipients {
		fmt.Fprintf(w, "\nx-receiver: <%s>%s", r, notify)
	}
	w.WriteByte('\n')
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
