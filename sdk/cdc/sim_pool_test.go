package cdc

import (
	"context"
	"iter"
	"slices"
)

// simPool runs jobs as coroutines, a step at a time.
type simPool struct {
	s       *sim
	running []*simJob
	current *simJob
	ended   []job
}

type simJob struct {
	j     job
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
}

func (p *simPool) start(j job) {
	sj := &simJob{j: j}
	sj.next, sj.stop = iter.Pull(func(yield func(struct{}) bool) {
		sj.yield = yield
		j.run(context.Background(), &simDriver{p.s})
	})
	p.running = append(p.running, sj)
}

func (p *simPool) next() job {
	if len(p.ended) == 0 {
		return nil
	}
	j := p.ended[0]
	p.ended = p.ended[1:]
	return j
}

func (p *simPool) close() {
	for _, sj := range p.running {
		p.current = sj
		sj.stop()
	}
	p.current = nil
	p.running = nil
}

// step lets one of the jobs go on.
func (p *simPool) step() {
	if len(p.running) == 0 {
		return
	}
	i := p.s.rnd.IntN(len(p.running))
	sj := p.running[i]
	p.current = sj
	if _, more := sj.next(); !more {
		p.running = slices.Delete(p.running, i, i+1)
		p.ended = append(p.ended, sj.j)
	}
	p.current = nil
}

func (p *simPool) pause(context.Context) error {
	if sj := p.current; sj != nil && !sj.yield(struct{}{}) {
		return errSimStopped
	}
	return nil
}
