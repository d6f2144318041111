package client_test

import (
	"context"
	"fmt"
	"os"

	"github.com/inferd-go/inferd/client"
)

// example starts a daemon with a mock backend, and calls use with a client of it. Other programs
// use the zero Client, which finds the daemon of this user.
func example(use func(ctx context.Context, c *client.Client) error) {
	dir, err := os.MkdirTemp("", "c")
	if err == nil {
		defer os.RemoveAll(dir)
		var stop func() error
		if stop, err = start(dir, `{"backends":[{"kind":"mock","name":"m","tokens":["Hello"," there"]}]}`); err == nil {
			defer func() { _ = stop() }()
			err = use(context.Background(), &client.Client{Dir: dir, Wait: waitLimit})
		}
	}
	if err != nil {
		fmt.Println(err)
	}
}

func ExampleClient_Generate() {
	example(func(ctx context.Context, c *client.Client) error {
		for ev, err := range c.Generate(ctx, client.Ask("Say hello.")) {
			if err != nil {
				return err
			}
			if ev.Done != nil {
				fmt.Printf("\n%s after %d tokens\n", ev.Done.StopReason, ev.Done.OutputTokens)
			}
			fmt.Print(ev.Text)
		}
		return nil
	})
	// Output:
	// Hello there
	// end_turn after 2 tokens
}

func ExampleClient_GenerateV1() {
	example(func(ctx context.Context, c *client.Client) error {
		answer, err := client.Collect(c.GenerateV1(ctx, client.Ask("Say hello.")))
		if err != nil {
			return err
		}
		fmt.Println(answer.Text)
		return nil
	})
	// Output: Hello there
}

func ExampleConn_Generate() {
	example(func(ctx context.Context, c *client.Client) error {
		conn, err := c.Dial(ctx, client.LP)
		if err != nil {
			return err
		}
		defer conn.Close()
		talk := client.Ask("Say hello.")
		for range 2 { // a conversation, on one connection
			answer, err := client.Collect(conn.Generate(ctx, talk))
			if err != nil {
				return err
			}
			fmt.Println(answer.Text)
			talk.Messages = append(talk.Messages, client.Text(client.Assistant, answer.Text), client.Text(client.User, "Again!"))
		}
		return nil
	})
	// Output:
	// Hello there
	// Hello there
}

func ExampleClient_Embed() {
	example(func(ctx context.Context, c *client.Client) error {
		e, err := c.Embed(ctx, &client.EmbedRequest{Inputs: []string{"abc", "abcdefg"}, Dimensions: 2})
		if err != nil {
			return err
		}
		fmt.Println(e.Model, e.Vectors)
		return nil
	})
	// Output: mock [[0.25 0.5] [0.125 0.25]]
}

func ExampleClient_Rerank() {
	example(func(ctx context.Context, c *client.Client) error {
		documents := []string{"a fast car", "a red apple", "a green apple"}
		r, err := c.Rerank(ctx, &client.RerankRequest{Query: "red apple", Documents: documents})
		if err != nil {
			return err
		}
		for _, x := range r.Results {
			fmt.Println(x.Score, documents[x.Index])
		}
		return nil
	})
	// Output:
	// 1 a red apple
	// 0.5 a green apple
	// 0 a fast car
}

func ExampleClient_Watch() {
	example(func(ctx context.Context, c *client.Client) error {
		for s, err := range c.Watch(ctx) {
			if err != nil {
				return err
			}
			if s.Ready() {
				fmt.Println("it is", s)
				break
			}
		}
		return nil
	})
	// Output: it is ready
}

func ExampleClient_Stats() {
	example(func(ctx context.Context, c *client.Client) error {
		if _, err := client.Collect(c.Generate(ctx, client.Ask("Say hello."))); err != nil {
			return err
		}
		s, err := c.Stats(ctx)
		if err != nil {
			return err
		}
		for _, b := range s.Backends {
			fmt.Println(b.Name, b.State, b.Requests, b.OutputTokens)
		}
		return nil
	})
	// Output: m ready 1 2
}
