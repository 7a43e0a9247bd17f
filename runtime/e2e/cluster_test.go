package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/runtime/e2e/network"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
)

const (
	brokerCount  = 3
	processCount = 3
	// How long the cluster waits for a broker that says nothing, and for a process.
	brokerSession, processSession = 4 * time.Second, 6 * time.Second
)

// TestCrashOnCluster is [TestCrash] on machines of their own: a Kafka of three brokers and the processes of a pipeline, each on a host of a network. At random,
// processes are killed, stopped (SIGSTOP), and cut off the network, for longer than the others wait for them, and so are brokers at the same time, one
// after the other. Meanwhile the work goes on. Then both destinations and the Parquet files equal the source, and have every change of the append-only table
// once, as has the topic for another consumer.
func TestCrashOnCluster(t *testing.T) {
	t.Parallel()
	bins := binaries(t)
	seed, length := crashSeed(t), crashLength(t, 30*time.Second)
	t.Logf("SLUICE_CRASH_SEED=%d SLUICE_CRASH_FOR=%s", seed, length)
	began := time.Now()
	m := newMachines(t, bins)
	w := m.worlds[0]
	w.discover(t, append(keyed(), "keyless")...)
	w.onKafka(m.kafka.Addresses(), brokerCount, map[string]any{"tls": map[string]any{"mode": "disable"}, "sessionTimeout": processSession.String()})
	l := w.intoThree(t)
	w.catalog.Materializations["e2e/deleting"].Shards, w.catalog.Materializations["e2e/marking"].Shards = 2, 2
	w.start(t)
	c := newChaos(t, w, seed, m.processBlows())
	c.began = began
	onBrokers := &chaos{w: w, random: rand.New(rand.NewPCG(seed, 100)), kinds: m.brokerBlows(), began: began, story: c.story}
	c.note("the first process is started")
	m.await(t, c, "the first process runs no task", func() bool { return strings.Contains(w.log(), `"this process runs the task now"`) })
	for _, one := range m.worlds[1:] {
		one.catalog = w.catalog
		one.start(t)
	}
	c.mortal = m.worlds
	c.note("all are started")
	m.await(t, c, "the backfill of the keyless table did not end", func() bool { return w.copyHas(t, "marking.keyless", 1000) })
	writing := startWriters(t, w.source, inPostgres, seed, 50*time.Millisecond)
	writing.startKeyless(t)
	c.note("the backfill of the keyless table is over")
	m.rage(t, length, c, onBrokers)
	writing.stop(t)
	c.note("the writers stopped after %d transactions", writing.committed.Load())

	changes, err := strconv.Atoi(w.source.exec(t, "SELECT count(*) FROM account"))
	require.NoError(t, err)
	m.await(t, c, fmt.Sprintf("not all of %d changes of the table without a key have arrived", changes), func() bool { return m.arrived(t) >= changes })
	w.arrived(t, l)
	c.note("all is equal")
	w.recorded(t, m.client)
	for _, one := range m.worlds {
		require.NoError(t, one.sluice.Stop(), "a clean stop after all that")
	}
	w.same(t, crashPairs()...)
	c.note("all has ended, and is equal still")
	for _, one := range m.worlds {
		require.Empty(t, complaints(one.log()), "what%s complains about beyond what was done to it", one.name)
	}
}

// await waits until something has become true, while no process ends by itself.
func (m *machines) await(t *testing.T, c *chaos, otherwise string, ok func() bool) {
	t.Helper()
	eventually(t, 3*arrival, func() bool {
		require.NoError(t, c.running())
		return ok()
	}, func() string { return otherwise })
}

// rage has several deal blows at the same time for a while, and sees that changes of the table without a key go on to arrive.
func (m *machines) rage(t *testing.T, length time.Duration, those ...*chaos) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	t.Cleanup(func() {
		cancel()
		_ = group.Wait() // if the test fails before
	})
	over := make(chan error, 1)
	for _, c := range those {
		group.Go(func() error { return c.rage(ctx, length, ways) })
	}
	go func() { over <- group.Wait() }()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	last, since, longest, steps := m.arrived(t), time.Now(), time.Duration(0), 0
	for {
		select {
		case err := <-over:
			those[0].note("%d changes have arrived meanwhile, in %d steps; for %.1f s there was none", last, steps, longest.Seconds())
			require.NoError(t, err)
			require.GreaterOrEqual(t, steps, int(length/(30*time.Second)), "times at which changes arrived while all that was done")
			return
		case <-look.C:
		}
		if now := m.arrived(t); now > last {
			last, since = now, time.Now()
			steps++
		}
		longest = max(longest, time.Since(since))
	}
}

// explained are complaints about brokers and databases that do not answer, or leave, and about others that have taken over meanwhile.
var explained = regexp.MustCompile(`no broker of|has taken|took over|the task failed and starts again|waiting for a(nother process| transaction)|has been opening|in use by another process|` +
	`timeout|timed out|in time|reset|refused|no route|unreachable|broken pipe|EOF|terminat|connection|` +
	`LEADER|REPLICAS|OFFSET_NOT_AVAILABLE|COORDINATOR|REBALANCE|MEMBER|GENERATION|EPOCH|replicas are there|has ended a transaction`)

// complaints are the lines of a log that are warnings or errors, and not explained by what brokers and processes suffer, and such as are neither.
func complaints(log string) (all []string) {
	for line := range strings.Lines(log) {
		said := strings.Contains(line, `"level":"warning"`) || strings.Contains(line, `"level":"error"`)
		if !strings.Contains(line, `"level":"info"`) && !(said && explained.MatchString(line)) {
			all = append(all, line)
		}
	}
	return all
}

// machines are a cluster of brokers and the processes of a pipeline, on hosts of a network if there can be one; otherwise all on this machine.
type machines struct {
	kafka   *server.KafkaCluster
	client  kcat
	brokers []*network.Host // nil without a network
	worlds  []*world        // one for each process
}

// newMachines makes the network, starts the brokers, and makes a source with rows, and a destination.
func newMachines(t *testing.T, bins launch.Binaries) *machines {
	t.Helper()
	m := &machines{}
	options := kafkad.Options{Brokers: brokerCount, Settings: map[string]string{
		"min.insync.replicas": "2", "broker.session.timeout.ms": strconv.FormatInt(brokerSession.Milliseconds(), 10),
	}}
	address := ""
	var settings []server.Option
	hosts := make([]*network.Host, brokerCount+processCount)
	net, err := network.New(t.Context())
	if errors.Is(err, network.ErrUnable) {
		t.Logf("nothing is cut off: %v", err)
	} else {
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, net.Close()) })
		address = net.Address()
		settings = []server.Option{
			server.WithSetting("listen_addresses", "127.0.0.1,"+address),
			server.WithHBA("host all all all scram-sha-256", "host replication all all scram-sha-256"),
		}
		for i := range hosts {
			hosts[i], err = net.Add(t.Context())
			require.NoError(t, err)
		}
		m.brokers = hosts[:brokerCount]
		for _, h := range m.brokers {
			options.Hosts = append(options.Hosts, kafkad.Host{Address: h.Address(), Command: h.Command()})
		}
	}
	m.kafka = server.Kafka(t, options)
	m.client = newKcat(t, m.kafka.Addresses())
	pg := server.Postgres(t, settings...)
	source, destination := newSide(t, pg), newSide(t, pg)
	if address != "" {
		source.address = address + ":" + strconv.Itoa(pg.Port())
		destination.address = source.address
	}
	source.exec(t, workloadTables, "ALTER TABLE keyless DISABLE TRIGGER keep_account", workloadRows, "ALTER TABLE keyless ENABLE TRIGGER keep_account",
		"DELETE FROM numbered WHERE id < -1000") // the backfill is not what is tested here
	for i, h := range hosts[brokerCount:] {
		w := newWorldOn(t, bins, source, destination)
		w.host, w.name = h, fmt.Sprintf(" process %d", i+1)
		m.worlds = append(m.worlds, w)
	}
	return m
}

// arrived counts the changes of the table without a key in the destination.
func (m *machines) arrived(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(m.worlds[0].copy.exec(t, "SELECT count(*) FROM marking.keyless WHERE id >= 0"))
	require.NoError(t, err)
	return n
}

// outage is what one victim suffers.
type outage struct {
	what       string
	begin, end func(ctx context.Context) error
	lasts      time.Duration
}

// run lets it happen. It is over early when the context is.
func (o outage) run(ctx context.Context) error {
	if err := o.begin(ctx); err != nil {
		return fmt.Errorf("%s: %w", o.what, err)
	}
	wait := time.NewTimer(o.lasts)
	defer wait.Stop()
	select {
	case <-ctx.Done():
	case <-wait.C:
	}
	if err := o.end(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("ending %s: %w", o.what, err)
	}
	return nil
}

// The ways to hit a victim.
const (
	kill = iota
	stop
	cut
	ways // how many
)

// process is an outage of a process. A process that is killed comes back soon; others are away for longer than the others wait for it.
func (m *machines) process(c *chaos, way int) outage {
	i := c.random.IntN(len(m.worlds))
	w := m.worlds[i]
	o := outage{lasts: longer(c, processSession)}
	switch way {
	case kill:
		o.what, o.lasts = "SIGKILL", o.lasts/8
		o.begin = func(context.Context) error { w.sluice.Kill(); return nil }
		o.end = func(context.Context) error { return w.launch(launch.Options{}) }
	case stop:
		o.what = "SIGSTOP"
		stopped := []int{w.sluice.PID()}
		if c.random.IntN(2) == 0 { // all of it, as when a machine hangs
			o.what = "SIGSTOP, with its connectors,"
			for _, program := range []string{launch.SourcePostgres, launch.MaterializePostgres, launch.MaterializeParquet} {
				stopped = append(stopped, w.sluice.Connectors(program)...)
			}
		}
		o.begin = func(context.Context) error { return signal(syscall.SIGSTOP, stopped) }
		o.end = func(context.Context) error { return signal(syscall.SIGCONT, stopped) }
	case cut:
		o.what = "a cut"
		o.begin = func(context.Context) error { return w.host.Cut() }
		o.end = func(context.Context) error { return w.host.Mend() }
	}
	o.what = fmt.Sprintf("%s of process %d for %.1f s", o.what, i+1, o.lasts.Seconds())
	return o
}

// signal sends a signal to processes, of which all but the first may have ended meanwhile.
func signal(number syscall.Signal, pids []int) error {
	for _, pid := range pids[1:] {
		_ = syscall.Kill(pid, number)
	}
	return syscall.Kill(pids[0], number)
}

// broker is an outage of a broker.
func (m *machines) broker(c *chaos, way int) outage {
	id := 1 + c.random.IntN(brokerCount)
	o := outage{lasts: longer(c, brokerSession)}
	switch way {
	case kill:
		o.what, o.lasts = "SIGKILL", o.lasts/8 // it takes its time to come back anyhow
		o.begin = func(context.Context) error { return m.kafka.Kill(id) }
		o.end = func(ctx context.Context) error { return m.kafka.Start(ctx, id) }
	case stop:
		o.what = "SIGSTOP"
		o.begin = func(context.Context) error { return m.kafka.Pause(id) }
		o.end = func(context.Context) error { return m.kafka.Resume(id) }
	case cut:
		o.what = "a cut"
		o.begin = func(context.Context) error { return m.brokers[id-1].Cut() }
		o.end = func(context.Context) error { return m.brokers[id-1].Mend() }
	}
	o.what = fmt.Sprintf("%s of broker %d for %.1f s", o.what, id, o.lasts.Seconds())
	return o
}

// longer is somewhat longer than a session.
func longer(c *chaos, session time.Duration) time.Duration {
	return session + session/4 + time.Duration(c.random.Int64N(int64(session)))/2
}

func (m *machines) processBlows() []blow { return m.blows("a process", m.process) }
func (m *machines) brokerBlows() []blow  { return m.blows("a broker", m.broker) }

// blows hit somebody in all ways that there are.
func (m *machines) blows(whom string, outage func(*chaos, int) outage) []blow {
	var all []blow
	for way := range ways {
		if way == cut && m.brokers == nil {
			continue // there is no network
		}
		all = append(all, blow{whom, func(c *chaos, ctx context.Context) (string, error) {
			o := outage(c, way)
			c.note("begins: %s", o.what)
			return o.what, o.run(ctx)
		}})
	}
	return all
}

// Lines that say more than what was done explain are complaints.
func TestComplaints(t *testing.T) {
	t.Parallel()
	strange := `{"level":"error","message":"the topic was deleted and made anew"}` + "\n"
	require.Equal(t, []string{strange, "panic: oh\n"}, complaints(
		`{"level":"info","message":"started"}`+"\n"+strange+`{"level":"warning","message":"no broker of kafka://a:1 answers"}`+"\n"+"panic: oh\n"))
}
