package dispatch

import "postrider/mta/delivery"

// Site names the site of a plan, as the dispatcher groups them.
func (t SiteTable) Site(p *delivery.Plan) string { return t.site(p) }
