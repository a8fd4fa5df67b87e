export const finding: (holds: boolean, text: string) => string
export const between: (document: string, name: string, text: string) => string
