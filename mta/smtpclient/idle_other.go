//go:build !unix

package smtpclient

import "net"

func isQuiet(net.Conn) bool { return false }
