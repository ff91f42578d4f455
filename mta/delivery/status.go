package delivery

import (
	"postrider/mta/smtpclient"
	"postrider/queue"
)

// replyStatus is the enhanced status of a reply (RFC 3463): the one that it
// gives, which smtpclient passes on only where its class is that of the code,
// else the one that fits code and stage best.
func replyStatus(r smtpclient.Reply, stage queue.Stage) string {
	if r.Enhanced != "" {
		return r.Enhanced
	}
	return withClass(codeStatus(r.Code, stage), byte('0'+r.Code/100))
}

// withClass gives a status another class.
func withClass(status string, class byte) string {
	if status == "" || status[0] == class {
		return status
	}
	return string(class) + status[1:]
}

// codeStatus is the status for a reply code without one, in any class.
func codeStatus(code int, stage queue.Stage) string {
	switch code {
	case 421:
		return "4.3.2"
	case 450:
		return "4.2.0"
	case 451:
		return "4.3.0"
	case 452:
		if stage == queue.StageRCPT {
			return "4.5.3" // RFC 5321, section 4.5.3.1.10
		}
		return "4.3.1"
	case 455, 555:
		return "5.5.4"
	case 500, 502, 503:
		return "5.5.1"
	case 501, 504:
		return "5.5.4"
	case 521: // RFC 7504, section 4
		return "5.3.2"
	case 550:
		if stage == queue.StageRCPT {
			return "5.1.1"
		}
		return "5.7.1"
	case 551:
		return "5.1.6"
	case 553:
		return "5.1.3"
	case 552:
		if stage == queue.StageRCPT {
			return "5.2.2"
		}
		return "5.3.4"
	case 556: // RFC 7504, section 4
		return "5.1.10"
	default:
		if code/100 == 2 && stage == queue.StageRCPT {
			return "2.1.5"
		}
		return "5.0.0"
	}
}
