package dispatch

import (
	"strings"

	"postrider/mta/delivery"
)

// SiteTable names the provider behind the name of a mail host, by suffix:
// "pphosted.com" stands for itself and everything below it. Domains of one
// provider share limits, also where each has mail hosts of its own.
type SiteTable map[string]string

// DefaultSites are providers whose customers' MX records differ.
func DefaultSites() SiteTable {
	return SiteTable{
		"mail.protection.outlook.com": "outlook",
		"olc.protection.outlook.com":  "outlook",
		"mx.microsoft":                "outlook",
		"google.com":                  "google",
		"googlemail.com":              "google",
		"yahoodns.net":                "yahoo",
		"pphosted.com":                "proofpoint",
		"ppe-hosted.com":              "proofpoint",
		"mimecast.com":                "mimecast",
		"mimecast.co.za":              "mimecast",
		"mimecast-offshore.com":       "mimecast",
		"mail.icloud.com":             "icloud",
		"ess.barracudanetworks.com":   "barracuda",
		"messagelabs.com":             "messagelabs",
		"iphmx.com":                   "cisco",
		"messagingengine.com":         "fastmail",
		"zoho.com":                    "zoho",
		"zoho.eu":                     "zoho",
		"mail.ovh.net":                "ovh",
		"protonmail.ch":               "proton",
		"secureserver.net":            "godaddy",
		"registrar-servers.com":       "namecheap",
		"tmes.trendmicro.com":         "trendmicro",
		"antispameurope.com":          "hornetsecurity",
		"mailspamprotection.com":      "siteground",
		"mxhichina.com":               "alibaba",
		"qq.com":                      "qq",
		"mail.ru":                     "mailru",
		"yandex.net":                  "yandex",
		"yandex.ru":                   "yandex",
	}
}

// site names the site of a plan: the provider that runs all of its best hosts,
// else the set of its hosts. Hosts that an operator wrote are a site as written.
func (t SiteTable) site(p *delivery.Plan) string {
	if p.Fixed || len(p.Hosts) == 0 {
		return p.Site
	}
	provider := ""
	for i := range p.Hosts {
		if p.Hosts[i].Preference != p.Hosts[0].Preference {
			break
		}
		name := t.provider(p.Hosts[i].Name)
		if name == "" || provider != "" && provider != name {
			return p.Site
		}
		provider = name
	}
	return provider
}

func (t SiteTable) provider(host string) string {
	for suffix := host; suffix != ""; {
		if name := t[suffix]; name != "" {
			return name
		}
		_, rest, ok := strings.Cut(suffix, ".")
		if !ok {
			break
		}
		suffix = rest
	}
	return ""
}
