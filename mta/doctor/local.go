package doctor

import (
	"context"
	"errors"

	"postrider/resolver"
)

// localMail looks at who gets the mail of this host to itself.
func (d *Doctor) localMail(ctx context.Context) []Finding {
	to := d.o.Senders.LocalMailTo
	if to == "" {
		return []Finding{{
			LocalMail, "local_mail_to", Failed,
			"is empty: cron's mail to root, mail to www-data and others of this host, and reports of failures that go back to them are refused, and nobody learns of it",
			`set local_mail_to = "somebody@example.com", an address elsewhere that is read`,
		}}
	}
	f := Finding{LocalMail, to, OK, "takes the mail for root and the others of this host, and its domain has mail hosts", ""}
	if len(d.o.Way.Hosts(d.o.Senders.LocalMailDomain)) > 0 {
		return []Finding{f}
	}
	_, err := d.o.DNS.Resolver.Route(ctx, d.o.Senders.LocalMailDomain)
	var e *resolver.Error
	switch {
	case errors.As(err, &e) && !e.Temporary():
		f.Verdict, f.Found, f.Advice = Failed, "mail to it bounces at once: "+err.Error(), "name an address that takes mail"
	case err != nil:
		f.Verdict, f.Found, f.Advice = Warning, "whether it takes mail is not known: "+err.Error(), seeNameServers
	}
	return []Finding{f}
}
