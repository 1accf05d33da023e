// Package delegate runs other CNI plugins for Pods: those of networks whose configuration names one.
//
// A network's plugins are called by libcni, with a configuration list that Configure completes: the network's ID as its name, the
// host link that DANM made as its master, and, where the Pod asked for addresses of the network, these in place of the plugin's own
// address management. What is called is a program of the plugin directories, and nothing else: neither a network's ID nor a plugin's
// name has a slash in it. Programs run in the mount namespace of the host, where their files are, also if this process is in a container;
// one after another for one container, as the CNI specification wants it (section 2), and a few at a time on the machine.
//
// It keeps libcni's cache of results, and knows no Pods and no addresses: what a list was called with stands in the records of
// cni/server.
package delegate
