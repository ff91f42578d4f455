package compose

import (
	"archive/zip"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// Zip makes one attachment of many: a ZIP archive that is written while it is
// sent. Two files of the same name are told apart by a number. Modified is the
// time given to the files inside.
func Zip(name string, files []Attachment, modified time.Time) Attachment {
	return Attachment{Name: name, Type: "application/zip", Open: func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(writeZip(w, files, modified)) }()
		return r, nil
	}}
}

func writeZip(w io.Writer, files []Attachment, modified time.Time) error {
	archive := zip.NewWriter(w)
	taken := make(map[string]bool)
	for i := range files {
		if err := addToZip(archive, &files[i], unique(taken, files[i].Name), modified); err != nil {
			return err
		}
	}
	return archive.Close()
}

func addToZip(archive *zip.Writer, file *Attachment, name string, modified time.Time) error {
	content, err := file.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	entry, err := archive.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: modified})
	if err != nil {
		return err
	}
	_, err = io.Copy(entry, content)
	return err
}

// unique gives a name inside the archive: relative, and not given before.
func unique(taken map[string]bool, name string) string {
	name = strings.TrimPrefix(path.Clean("/"+strings.ReplaceAll(name, `\`, "/")), "/")
	suffix := path.Ext(name)
	stem := strings.TrimSuffix(name, suffix)
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s (%d)%s", stem, n, suffix)
	}
	taken[name] = true
	return name
}
