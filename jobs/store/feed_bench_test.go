package store_test

import (
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// BenchmarkReceive commits chunks of 1,000 rows that are not here, of node b,
// and BenchmarkFeed reads such chunks: what a refill costs a row at each end.
func BenchmarkReceive(b *testing.B) {
	for name, iterations := range map[string]uint64{"open": 9, "completed": 1} {
		b.Run(name, func(b *testing.B) {
			s := open(b, store.Options{})
			if err := s.SetPeer(b.Context(), "b", "", ""); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				b.StopTimer()
				rows, at := foreignRows(b, 1000, iterations), time.Now().Truncate(time.Microsecond)
				for i := range rows { // as they come: each later than all before
					rows[i].Job = rows[i].Job.Born("b", at.Add(time.Duration(i)*time.Microsecond), nil)
				}
				c := foreign(rows...)
				c.From = s.Reading().Cursor
				b.StartTimer()
				if _, err := s.Receive(b.Context(), c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/row")
		})
	}
}

// BenchmarkFeed is described with BenchmarkReceive.
func BenchmarkFeed(b *testing.B) {
	s := open(b, store.Options{})
	if _, err := s.Enqueue(b.Context(), work(b, 20000, 9)); err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{0, 1, 1000} {
		b.Run(map[int]string{0: "nothing", 1: "1", 1000: "1000"}[n], func(b *testing.B) {
			q := jobs.FeedQuery{Cursor: jobs.Cursor{Boot: s.Boot(), At: s.Head() - jobs.LSeq(n), SeenHead: s.Head()}, Rows: 1000, Bytes: 1 << 20}
			for b.Loop() {
				if c, err := s.Feed(b.Context(), q); err != nil || len(c.Rows) != n {
					b.Fatal(len(c.Rows), err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(max(n, 1)), "ns/row")
		})
	}
}
