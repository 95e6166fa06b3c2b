// The Greeter on grpc-go: the peer that shows what one core can do.
//
// The messages are protobuf's well-known wrappers, which have the wire form of greeter.proto's.
package main

import (
	"context"
	"fmt"
	"io"
	"net"

	wrapperspb "github.com/golang/protobuf/ptypes/wrappers"
	"google.golang.org/grpc"
)

type greeter struct{}

func sayHello(_ interface{}, ctx context.Context, decode func(interface{}) error, intercept grpc.UnaryServerInterceptor) (interface{}, error) {
	request := new(wrapperspb.StringValue)
	if err := decode(request); err != nil {
		return nil, err
	}
	return &wrapperspb.StringValue{Value: "Hello, " + request.Value + "!"}, nil
}

func echo(_ interface{}, ctx context.Context, decode func(interface{}) error, intercept grpc.UnaryServerInterceptor) (interface{}, error) {
	request := new(wrapperspb.BytesValue)
	if err := decode(request); err != nil {
		return nil, err
	}
	return request, nil
}

func count(_ interface{}, stream grpc.ServerStream) error {
	request := new(wrapperspb.Int64Value)
	if err := stream.RecvMsg(request); err != nil {
		return err
	}
	for k := int64(0); k < request.Value; k++ {
		if err := stream.SendMsg(&wrapperspb.StringValue{Value: fmt.Sprintf("Hello, %d!", k)}); err != nil {
			return err
		}
	}
	return nil
}

func chat(_ interface{}, stream grpc.ServerStream) error {
	for {
		request := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(request); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&wrapperspb.StringValue{Value: "Hello, " + request.Value + "!"}); err != nil {
			return err
		}
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer(grpc.MaxConcurrentStreams(1000))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "benchmarks.Greeter",
		HandlerType: (*interface{})(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "SayHello", Handler: sayHello},
			{MethodName: "Echo", Handler: echo},
		},
		Streams: []grpc.StreamDesc{
			{StreamName: "Count", Handler: count, ServerStreams: true},
			{StreamName: "Chat", Handler: chat, ServerStreams: true, ClientStreams: true},
		},
	}, greeter{})
	fmt.Printf("ready %d\n", listener.Addr().(*net.TCPAddr).Port)
	if err := server.Serve(listener); err != nil {
		panic(err)
	}
}
