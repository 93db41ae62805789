import agent from './index.cjs';

export const { AgentError, reply } = agent;
