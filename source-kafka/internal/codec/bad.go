package codec

import (
	"fmt"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// BadMessage is a record that can never be decoded as the topic is set up: a poison message, for the user's policy. It
// holds nothing of the record itself.
type BadMessage struct { //nolint:errname // users know it by this name, from onBadMessage
	Topic string
	Side  Side
	// Reason says what is wrong in words for people, without a full stop, to be shown behind the record's place.
	Reason string

	cause error
}

func (b *BadMessage) Error() string {
	return fmt.Sprintf("the %s of a record of topic %q cannot be decoded: %s", b.Side, b.Topic, b.Reason)
}

func (b *BadMessage) Unwrap() error { return b.cause }

func (c *Codec) bad(cause error, format string, args ...any) error {
	return &BadMessage{Topic: c.opts.Topic, Side: c.opts.Side, Reason: fmt.Sprintf(format, args...), cause: cause}
}

// badText is bad for a record without schema, with advice where its first byte gives it away.
func (c *Codec) badText(data []byte, err error) error {
	reason := err.Error()
	setting := c.opts.Side.String() + "Format"
	switch {
	case len(data) >= 5 && data[0] == 0 && !c.opts.Format.frames():
		reason += fmt.Sprintf(". It begins as records of a schema registry do: set %s to auto", setting)
	case len(data) >= 18 && data[0] == 3 && (data[1] == 0 || data[1] == 5):
		reason += ". It begins as records of AWS Glue's schema registry do, which cannot be read yet"
	case c.opts.Format == Auto:
		reason += fmt.Sprintf(". Set %s to what the topic holds: string, bytes or csv", setting)
	}
	return c.bad(err, "%s", reason)
}

// noRegistry is the answer for a framed record where no registry was set up. It is no BadMessage: the record is good.
func (c *Codec) noRegistry(f frame) error {
	return usererr.New(nil, "The %ss of topic %q name schemas of a schema registry, here %s. Set schemaRegistry.endpoint, "+
		"or set %sFormat to bytes to capture them as they are.", c.opts.Side, c.opts.Topic, f.name(), c.opts.Side)
}
