package mta

import (
	"postrider/config"
	"postrider/mta/memory"
)

// What a connection may take at its worst: of a client the content that it
// sends, up to where that becomes a file, and its place in the store's write;
// to a host the contents that are under way, and TLS.
const (
	memoryPerClient     = 1_000_000
	memoryPerConnection = 2_000_000
	// A server that is too small for these works no worse for having them.
	fewestConnections = 20
)

// withinMemory is the configuration with no more connections than a limit of
// memory, 0 being none, has room for.
func withinMemory(cfg *config.Config, limit int64) *config.Config {
	if limit == 0 {
		return cfg
	}
	c := *cfg
	c.Submission.MaxConnections = min(c.Submission.MaxConnections, max(int(limit/memoryPerClient), fewestConnections))
	c.Delivery.MaxConnections = min(c.Delivery.MaxConnections, max(int(limit/memoryPerConnection), fewestConnections))
	return &c
}

// guardMemory makes the guard over what the control group allows. After an
// error it is one that allows everything.
func (m *MTA) guardMemory() (g *memory.Guard, limit int64, err error) {
	group, err := memory.Find()
	if err == nil {
		g, err = memory.NewGuard(group)
	}
	if err == nil {
		limit, err = g.Limit()
	}
	if err != nil {
		return memory.Unlimited(), 0, err
	}
	if limit > 0 {
		m.cfg = withinMemory(m.cfg, limit)
		m.log.Info("memory is limited by the control group", "limit_mb", limit/1_000_000,
			"connections_in", m.cfg.Submission.MaxConnections, "connections_out", m.cfg.Delivery.MaxConnections)
	}
	return g, limit, nil
}
