package host

import (
	"strings"

	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// counted is a binding of either kind of specification.
type counted interface {
	GetResourcePath() []string
	GetBackfill() uint32
}

// notLower refuses a backfill counter that is lower than that of a binding of the same resource in the last specification. What is
// kept under the lower one stands where the higher one began: to go on from there would leave out all that came since, and a
// destination whose table is made anew would have nothing from before.
func notLower[B counted](path []string, counter uint32, last []B) error {
	for _, old := range last {
		if was := old.GetBackfill(); was > counter && specs.StateKey(old.GetResourcePath(), 0) == specs.StateKey(path, 0) {
			return usererr.New(nil, "The backfill counter of %s was %d, and is %d now. It can only be increased: set it to %d to go on, or to %d to start anew.",
				strings.Join(path, "."), was, counter, was, was+1)
		}
	}
	return nil
}
