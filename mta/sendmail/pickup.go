package sendmail

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// drop puts a message into the pickup directory, where the server finds it
// when it is back. The name ends in .eml only when all of it is on disk.
func drop(dir, sender string, recipients []string, content io.Reader) (err error) {
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
	fmt.Fprintf(w, "x-sender: <%s>\n", sender)
	for _, r := range recipients {
		fmt.Fprintf(w, "x-receiver: <%s>\n", r)
	}
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

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
