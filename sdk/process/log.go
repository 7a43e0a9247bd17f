package process

import (
	"io"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// newLogger makes the logger that LOG_FORMAT and LOG_LEVEL ask for. Without LOG_FORMAT, a terminal gets text, and anything
// else one JSON object a line: {"ts", "level", "message", "fields"}.
func newLogger(p *Process, stderrIsTerminal bool) (*logrus.Logger, error) {
	log := logrus.New()
	log.SetOutput(&noticed{p.Stderr, &p.logged})
	format, _ := p.LookupEnv("LOG_FORMAT")
	if format == "" {
		format = "json"
		if stderrIsTerminal {
			format = "text"
		}
	}
	switch format {
	case "json":
		log.SetFormatter(&logrus.JSONFormatter{
			TimestampFormat: time.RFC3339Nano,
			DataKey:         "fields",
			FieldMap:        logrus.FieldMap{logrus.FieldKeyTime: "ts", logrus.FieldKeyMsg: "message"},
		})
	case "text", "color":
		log.SetFormatter(&logrus.TextFormatter{
			FullTimestamp: true, TimestampFormat: time.RFC3339,
			ForceColors: format == "color", DisableColors: format == "text" && !stderrIsTerminal,
		})
	default:
		return nil, usererr.New(nil, "The environment variable LOG_FORMAT is %q; it may be json, text or color.", format)
	}
	if level, ok := p.LookupEnv("LOG_LEVEL"); ok && level != "" {
		parsed, err := logrus.ParseLevel(level)
		if err != nil {
			return nil, usererr.New(err, "The environment variable LOG_LEVEL is %q; it may be error, warn, info, debug or trace.", level)
		}
		log.SetLevel(parsed)
	}
	return log, nil
}

// noticed is a writer that remembers that something was written.
type noticed struct {
	io.Writer
	used *atomic.Bool
}

func (n *noticed) Write(p []byte) (int, error) {
	n.used.Store(true)
	return n.Writer.Write(p)
}

// Discard is a logger that writes nothing.
func Discard() *logrus.Logger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	log.SetLevel(logrus.PanicLevel)
	return log
}
