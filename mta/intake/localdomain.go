package intake

// IsLocal reports whether mail for a domain (A-labels, lower case) is for this
// host itself, and so goes to LocalMailTo.
func (r *Receiver) IsLocal(domain string) bool { return r.local.ours(domain) }
