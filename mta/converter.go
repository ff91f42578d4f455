package mta

import (
	"errors"
	"io"

	"postrider/mta/delivery"
	"postrider/mta/intake"
	"postrider/mta/smtpclient"
)

// converter has intake rewrite what a host cannot take as it is stored.
type converter struct{ intake *intake.Receiver }

// Convert implements delivery.Converter.
func (c converter) Convert(content delivery.Opener, need delivery.Need) (smtpclient.Body, io.Closer, error) {
	m, err := c.intake.Convert(content.Content, need.SevenBit)
	var unfit *intake.Unfit
	switch {
	case errors.Is(err, intake.ErrFits):
		return smtpclient.Body{}, nil, delivery.ErrFits
	case errors.As(err, &unfit):
		return smtpclient.Body{}, nil, &delivery.Unconvertible{Status: unfit.Status, Reason: unfit.Reason}
	case err != nil:
		return smtpclient.Body{}, nil, err
	}
	return smtpclient.Body{Head: m.Head, File: m.Text, Size: m.Size}, m, nil
}
