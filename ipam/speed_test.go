package ipam

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkAcquireRelease is the in-process budget of design.md section 10, on a real disk: callers at once, each giving
// one Pod one address and taking it back.
func BenchmarkAcquireRelease(b *testing.B) {
	for _, callers := range []int{1, 8, 32, 128} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			s, err := Open(b.TempDir(), Options{Cooldown: -1})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			n := network("voice", "10.0.0.0/8", "")
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range callers {
				wg.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						name := fmt.Sprintf("%064d", i)
						if _, err := s.Acquire(ctx, intent(name, name[28:], want("eth0", n, dynamic, noneMode))); err != nil {
							b.Error(err)
						}
						if err := s.Release(ctx, name); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)*2/b.Elapsed().Seconds(), "ops/s")
		})
	}
}
