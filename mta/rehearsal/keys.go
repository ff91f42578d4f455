package rehearsal

import (
	"os"
	"path/filepath"

	"postrider/dkim"
)

// MakeKeys puts keys for a domain into a directory, under
// the names that a server finds by itself in its state directory, and answers
// the records to publish as lines of a zone file.
// Without algorithms it makes both kinds.
func MakeKeys(dir, domain, selector string, algorithms ...dkim.Algorithm) (records []string, err error) {
	if len(algorithms) == 0 {
		algorithms = []dkim.Algorithm{dkim.RSA, dkim.Ed25519}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for _, algorithm := range algorithms {
		record, err := makeKey(dir, domain, selector+"-"+string(algorithm), algorithm)
		if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	return records, nil
}

func makeKey(dir, domain, selector string, algorithm dkim.Algorithm) (record string, err error) {
	key, err := dkim.GenerateKey(algorithm)
	if err != nil {
		return "", err
	}
	if err := dkim.WriteKeyFile(filepath.Join(dir, domain+"."+selector+".pem"), key); err != nil {
		return "", err
	}
	public, err := key.Record()
	if err != nil {
		return "", err
	}
	return public.ZoneLine(dkim.RecordName(domain, selector)), nil
}
