// A real gRPC client as the load: every call has a deadline, a request id and metadata of its own,
// so that the HPACK dynamic table changes on every request.
//
//	load -address 127.0.0.1:1234 -work unary -in-flight 64 -seconds 1
//
// works until the time is over and prints one JSON line: calls (messages for chat), seconds, p50 and p99 in ms, failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"sync"
	"time"

	wrapperspb "github.com/golang/protobuf/ptypes/wrappers"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

var (
	address  = flag.String("address", "", "host:port of the server")
	work     = flag.String("work", "unary", "unary or chat")
	inFlight = flag.Int("in-flight", 64, "calls at once")
	seconds  = flag.Float64("seconds", 1, "how long")
)

func unary(connection *grpc.ClientConn, random *rand.Rand) (time.Duration, error) {
	// No two calls have the same deadline, hence no two the same grpc-timeout.
	deadline := time.Duration(20e9 + random.Int63n(10e9))
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx,
		"request_id", fmt.Sprintf("%016x%016x", random.Uint64(), random.Uint64()), "application", "default")
	began := time.Now()
	reply := new(wrapperspb.StringValue)
	err := connection.Invoke(ctx, "/benchmarks.Greeter/SayHello", &wrapperspb.StringValue{Value: "world"}, reply)
	if err == nil && reply.Value != "Hello, world!" {
		err = fmt.Errorf("unexpected reply %q", reply.Value)
	}
	return time.Since(began), err
}

func chat(connection *grpc.ClientConn, until time.Time, report func(time.Duration, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	description := &grpc.StreamDesc{StreamName: "Chat", ServerStreams: true, ClientStreams: true}
	stream, err := connection.NewStream(ctx, description, "/benchmarks.Greeter/Chat")
	if err != nil {
		report(0, err)
		return
	}
	reply := new(wrapperspb.StringValue)
	for time.Now().Before(until) {
		began := time.Now()
		if err = stream.SendMsg(&wrapperspb.StringValue{Value: "world"}); err == nil {
			err = stream.RecvMsg(reply)
		}
		report(time.Since(began), err)
		if err != nil {
			return
		}
	}
}

func main() {
	flag.Parse()
	connection, err := grpc.Dial(*address, grpc.WithInsecure(), grpc.WithBlock())
	if err != nil {
		panic(err)
	}
	var tasks sync.WaitGroup
	var lock sync.Mutex
	var latencies []time.Duration
	failed := 0
	began := time.Now()
	until := began.Add(time.Duration(*seconds * 1e9))
	for task := 0; task < *inFlight; task++ {
		tasks.Add(1)
		go func(seed int64) {
			defer tasks.Done()
			random := rand.New(rand.NewSource(seed))
			var mine []time.Duration
			bad := 0
			report := func(latency time.Duration, err error) {
				if err != nil {
					if bad++; bad == 1 {
						fmt.Fprintln(os.Stderr, err)
					}
					return
				}
				mine = append(mine, latency)
			}
			if *work == "chat" {
				chat(connection, until, report)
			} else {
				for bad == 0 && time.Now().Before(until) {
					report(unary(connection, random))
				}
			}
			lock.Lock()
			latencies = append(latencies, mine...)
			failed += bad
			lock.Unlock()
		}(int64(task))
	}
	tasks.Wait()
	elapsed := time.Since(began).Seconds()
	sort.Slice(latencies, func(i, j int) bool { return latencies[i] < latencies[j] })
	at := func(share float64) float64 {
		if len(latencies) == 0 {
			return 0
		}
		return float64(latencies[int(share*float64(len(latencies)-1))]) / 1e6
	}
	fmt.Printf(`{"calls": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}`+"\n",
		len(latencies), elapsed, at(0.5), at(0.99), failed)
}
