package mta

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"

	"postrider/config"
	"postrider/dkim"
)

// Reload reads the files again that may change while the server runs: DKIM
// keys, the rules about replies and the certificates of listeners. Where one has
// a fault, that is logged and what was read before stays in use. It may be
// called at any time after New, also while mail flows.
func (m *MTA) Reload() {
	m.again("the rules about replies", m.reloadRules())
	// As at the start: missing files, and keys that others can read.
	if err := m.cfg.CheckFiles(); err != nil {
		m.again("DKIM keys and certificates", err)
	} else {
		m.again("DKIM keys", m.reloadKeys())
		for _, c := range m.certificates {
			m.again("certificates", c.load())
		}
	}
	m.log.Info("reloaded: DKIM keys, delivery.rules_file and certificates; all else, the configuration file among it, is read by a restart alone")
}

// again tells what came of reading something anew.
func (m *MTA) again(what string, err error) {
	var all config.Errors
	switch {
	case err == nil:
	case errors.As(err, &all):
		for _, e := range all {
			m.log.Error("reload: "+what+" stay as they were", "error", e)
		}
	default:
		m.log.Error("reload: "+what+" stay as they were", "error", err)
	}
}

func (m *MTA) reloadRules() error {
	rules, err := m.cfg.ReadRules()
	if err == nil {
		m.agent.SetRules(replyRules(rules))
	}
	return err
}

func (m *MTA) reloadKeys() error {
	sources, err := dkim.Sources(dkimSources(m.cfg), m.state.dkim())
	if err != nil {
		return err
	}
	return m.keys.Reload(sources)
}

// certificate is the one of a listener, as its files had it when they were last
// read. It is safe for concurrent use.
type certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

// loadCertificate reads the certificate of a listener; nil: it has none.
func loadCertificate(l *config.Listener) (*certificate, error) {
	if l.TLSCertFile == "" {
		return nil, nil
	}
	c := &certificate{certFile: l.TLSCertFile, keyFile: l.TLSKeyFile}
	return c, c.load()
}

// load reads the files; after an error the former certificate stays.
func (c *certificate) load() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	c.current.Store(&pair)
	return nil
}

// get is tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}
