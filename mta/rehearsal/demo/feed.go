package demo

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"golang.org/x/sync/errgroup"

	"postrider/mta/rehearsal"
)

// injectors is how many programs submit at once.
const injectors = 4

// signingDomain is where the sample messages come from.
const signingDomain = "sender.test"

func (p *play) configFile() string { return filepath.Join(p.dir, "postrider.toml") }
func (p *play) stateDir() string   { return filepath.Join(p.dir, "state") }
func (p *play) pickup() string     { return filepath.Join(p.stateDir(), "pickup") }

// configure writes the configuration: where things are, and nothing about how
// mail is treated but a schedule that a demo can wait for.
func (p *play) configure() error {
	var err error
	if p.submission, err = freeAddr(); err != nil {
		return err
	}
	if p.http, err = freeAddr(); err != nil {
		return err
	}
	text := fmt.Sprintf(`state_dir = %q
[submission]
listen = [%q]
[http]
listen = %q
[resolver]
servers = [%q]
[delivery]
port = %d
allow_networks = ["127.0.0.0/8"]
retry = ["1s", "2s", "4s"]
`, p.stateDir(), p.submission, p.http, p.world.dns.Addr(), p.world.port)
	if err := os.WriteFile(p.configFile(), []byte(text), 0o600); err != nil {
		return err
	}
	return p.makeKeys()
}

// makeKeys puts DKIM keys where the server looks for them by itself, and
// publishes their records.
func (p *play) makeKeys() error {
	records, err := rehearsal.MakeKeys(filepath.Join(p.stateDir(), "dkim"), signingDomain, "demo")
	if err != nil {
		return err
	}
	p.world.dns.Add(records...)
	return nil
}

// freeAddr is an address of loopback that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// feed moves the sample messages into the pickup directory and submits
// further ones over SMTP.
func (p *play) feed(ctx context.Context) error {
	for i := range p.expected.Messages {
		if err := p.drop(p.expected.Messages[i].File); err != nil {
			return err
		}
	}
	domains := domainsOf(p.expected)
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for worker := range injectors {
		g.Go(func() error { return p.inject(ctx, worker, domains) })
	}
	err := g.Wait()
	p.injectionRate = float64(p.Injected) / time.Since(began).Seconds()
	return err
}

// drop copies a file beside the pickup directory and moves it in, as a
// program that writes into it should.
func (p *play) drop(file string) error {
	data, err := os.ReadFile(filepath.Join(p.Spool, file))
	if err != nil {
		return err
	}
	beside := filepath.Join(p.dir, file)
	if err := os.WriteFile(beside, data, 0o600); err != nil {
		return err
	}
	return os.Rename(beside, filepath.Join(p.pickup(), file))
}

// inject submits one worker's share over one connection.
func (p *play) inject(ctx context.Context, worker int, domains []string) error {
	c, err := smtp.Dial(p.submission)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Hello("app.sender.test"); err != nil {
		return err
	}
	for n := worker; n < p.Injected; n += injectors {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		to := "reader-" + strconv.Itoa(n) + "@" + domains[n%len(domains)]
		p.ledger.expect("SMTP", injectedSender, to, rehearsal.FateDelivered)
		if err := c.SendMail(injectedSender, []string{to}, strings.NewReader(letter(n, to))); err != nil {
			return fmt.Errorf("submit to %s: %w", p.submission, err)
		}
	}
	return c.Quit()
}

const injectedSender = "newsletter@" + signingDomain

func letter(n int, to string) string {
	return fmt.Sprintf("From: Newsletter <%s>\r\nTo: <%s>\r\nSubject: Letter %d\r\n"+
		"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%s",
		injectedSender, to, n, strings.Repeat("The ferry leaves at half past seven, weather permitting.\r\n", 60))
}
