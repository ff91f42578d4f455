package wire

import "time"

// AgeLimits are the upper ends of the columns of Ages, in minutes; the
// last column holds what is older.
var AgeLimits = [9]int{5, 10, 20, 40, 80, 160, 320, 640, 1280}

// Stats are figures about the queue as a whole.
type Stats struct {
	At                time.Time    `json:"at"`
	Mode              string       `json:"mode"`
	Error             string       `json:"error,omitempty"` // why no mail is taken at present
	Messages          int64        `json:"messages"`
	Recipients        int64        `json:"recipients"`
	Waiting           int64        `json:"waiting"` // recipients, and so on
	Due               int64        `json:"due"`
	Active            int64        `json:"active"`
	Held              int64        `json:"held"`
	Oldest            time.Time    `json:"oldest,omitzero"`
	UnreportedNotices int64        `json:"unreported_notices"`
	BodyMemory        int64        `json:"body_memory"` // octets
	Ages              [10]int64    `json:"ages"`        // recipients by age, see AgeLimits
	DomainCount       int          `json:"domain_count"`
	Domains           []Domain     `json:"domains"` // the fullest first, at most as many as were asked for
	Suspensions       []Suspension `json:"suspensions"`
}

// Domain is one row of the age x destination grid.
type Domain struct {
	Domain  string    `json:"domain"`
	Waiting int64     `json:"waiting"`
	Due     int64     `json:"due"`
	Active  int64     `json:"active"`
	Held    int64     `json:"held"`
	Oldest  time.Time `json:"oldest,omitzero"`
	Next    time.Time `json:"next,omitzero"`
	Ages    [10]int64 `json:"ages"` // recipients by age, see AgeLimits
	// Lane is what the dispatcher knows of the destination; nil where it has
	// no business with it at present.
	Lane *Lane `json:"lane,omitempty"`
}

// Lane is the state of one destination in the dispatcher.
type Lane struct {
	Site        string    `json:"site,omitempty"`
	Connections int       `json:"connections"` // open to the site
	Window      int       `json:"window"`      // how many there may be at present
	Waits       string    `json:"waits,omitempty"`
	Until       time.Time `json:"until,omitzero"` // when that ends, as far as is known
	// LastError is of the last attempt that did not deliver, at LastErrorAt;
	// later ones may have.
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
}

// Explanation is how mail to an address would go, and what holds it now.
type Explanation struct {
	Address string `json:"address"`
	Domain  string `json:"domain"` // as it is asked for in DNS
	// Local: it is mail for this host, which goes to local_mail_to.
	Local      bool     `json:"local,omitempty"`
	Site       string   `json:"site,omitempty"`
	Route      string   `json:"route"` // mx, implicit, literal, fixed, none
	RouteError string   `json:"route_error,omitempty"`
	Permanent  bool     `json:"permanent,omitempty"` // the error is one that bounces
	DNSSEC     bool     `json:"dnssec"`              // the MX answer is validated
	Hosts      []Host   `json:"hosts"`
	Skipped    []Host   `json:"skipped,omitempty"` // never tried, see their Error
	Settings   Settings `json:"settings"`
	// Lane is what the dispatcher knows of the destination; nil where it has
	// no business with it at present.
	Lane *Lane `json:"lane,omitempty"`
	// Suspensions that hold this mail, whoever sends it.
	Suspensions []Suspension `json:"suspensions,omitempty"`
}

// Host is one mail host of a route, in the order of preference.
type Host struct {
	Name       string        `json:"name"`
	Preference uint16        `json:"preference"`
	Port       int           `json:"port"`
	Addresses  []HostAddress `json:"addresses"`
	Error      string        `json:"error,omitempty"` // why there are none
	TLS        Demand        `json:"tls"`
}

// HostAddress is an address and why it will not be dialled, if so.
type HostAddress struct {
	IP      string `json:"ip"`
	Refused string `json:"refused,omitempty"`
}

// Demand is what is asked of a session's TLS, and who asks for it.
type Demand struct {
	Level  string `json:"level"` // none, enable, require, verify, dane, sts
	Source string `json:"source,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Settings are those that hold for a destination.
type Settings struct {
	Retry                 []string `json:"retry,omitempty"` // spans with units
	ExpireAfter           string   `json:"expire_after,omitempty"`
	DelayNoticeAfter      string   `json:"delay_notice_after,omitempty"`
	MaxConnections        int      `json:"max_connections,omitempty"` // to the site
	MaxMessagesPerMinute  int      `json:"max_messages_per_minute,omitempty"`
	MaxMessagesPerConn    int      `json:"max_messages_per_connection,omitempty"`
	MaxRecipientsPerTrans int      `json:"max_recipients_per_transaction,omitempty"`
}

// Info says who answers.
type Info struct {
	Hostname       string `json:"hostname"`
	Version        string `json:"version"`
	Mode           string `json:"mode"`
	MaxMessageSize int64  `json:"max_message_size"` // octets
}

// Check is what a check of the whole store has found.
type Check struct {
	Messages   int64          `json:"messages"`   // with open recipients or unreported notices
	Recipients int64          `json:"recipients"` // open ones; 0 where the server does not run
	Notices    int64          `json:"notices"`
	Bodies     int64          `json:"bodies"` // read in full and compared with their sums
	Histories  int64          `json:"histories"`
	Leftovers  int64          `json:"leftovers"` // files of bodies that a kill has left and the next start removes; 0 where the server runs
	SetAside   []string       `json:"set_aside"` // messages that cannot be read; their history tells why
	Problems   []CheckProblem `json:"problems"`  // the first 1,000
}

// CheckProblem is something in the store that should not be.
type CheckProblem struct {
	ID   string `json:"id,omitempty"` // of the message, if it concerns one
	Text string `json:"text"`
}
