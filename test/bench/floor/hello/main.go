// Command hello is the floor of a CNI call: a static Go program that starts, prints a line and ends.
package main

import "os"

func main() { _, _ = os.Stdout.WriteString("hello\n") }
